//! How far the work has come, in numbers and in words. Time is an argument.

use std::fmt;
use std::time::Duration;

/// How far the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Progress {
    /// Clips to analyse.
    pub todo: usize,
    /// Clips done, those that could not be analysed among them.
    pub done: usize,
    /// Clips that could not be analysed.
    pub failed: usize,
    /// Audio analysed.
    pub audio: Duration,
    /// Time since the work began.
    pub elapsed: Duration,
}

impl Progress {
    /// Clips per second so far; 0 before the first.
    pub fn rate(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64();
        if elapsed > 0.0 { self.done as f64 / elapsed } else { 0.0 }
    }

    /// Audio per time, both in seconds; 0 before the first.
    pub fn speed(&self) -> f64 {
        let elapsed = self.elapsed.as_secs_f64();
        if elapsed > 0.0 { self.audio.as_secs_f64() / elapsed } else { 0.0 }
    }

    /// Time to the end at this rate; `None` before the first.
    pub fn left(&self) -> Option<Duration> {
        let clips = self.todo.saturating_sub(self.done) as f64;
        (self.done > 0).then(|| self.elapsed.mul_f64(clips / self.done as f64))
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { todo, done, failed, .. } = self;
        let hours = self.audio.as_secs_f64() / 3600.0;
        write!(f, "{done} of {todo} files, {failed} failed, {hours:.2} h of audio, ")?;
        write!(f, "{:.1} files/s, {:.0} times real time, ", self.rate(), self.speed())?;
        match self.left() {
            Some(left) => {
                let whole = Duration::from_secs(left.as_secs_f64().ceil() as u64);
                write!(f, "{} left", humantime::format_duration(whole))
            }
            None => write!(f, "time left unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_the_time_left_follow_from_what_is_done() {
        let progress = Progress {
            todo: 1_000,
            done: 250,
            failed: 2,
            audio: Duration::from_secs(7_200),
            elapsed: Duration::from_secs(20),
        };
        assert_eq!(progress.left(), Some(Duration::from_secs(60)));
        let said = progress.to_string();
        for part in
            ["250 of 1000 files", "2 failed", "2.00 h", "12.5 files/s", "360 times", "1m left"]
        {
            assert!(said.contains(part), "{said}");
        }
        let nothing = Progress { todo: 3, ..Progress::default() };
        assert!(nothing.to_string().ends_with("0 times real time, time left unknown"));
    }
}

//! `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3) -> a pause, capped.

use std::time::{Duration, SystemTime};

/// The pause that `value` asks for at `now`, at most `longest`; zero for a date that has passed.
/// `None` for what is neither a number of seconds nor a date.
pub(super) fn pause(value: &str, now: SystemTime, longest: Duration) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit ask for more than any cap.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        date.duration_since(now).unwrap_or(Duration::ZERO)
    };
    Some(pause.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn seconds_and_the_three_forms_of_dates_are_taken() {
        let now = at(784_111_777 - 60);
        assert_eq!(pause("120", now, HOUR), Some(Duration::from_secs(120)));
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(pause(date, now, HOUR), Some(Duration::from_secs(60)), "{date}");
        }
    }

    #[test]
    fn nonsense_is_no_pause() {
        for value in ["", " ", "-1", "1.5", "soon", "+3", "1e3", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(pause(value, at(0), HOUR), None, "{value:?}");
        }
    }

    #[test]
    fn a_date_that_has_passed_asks_for_no_pause() {
        let now = at(784_111_777 + 5);
        let passed = pause("Sun, 06 Nov 1994 08:49:37 GMT", now, HOUR);
        assert_eq!(passed, Some(Duration::ZERO));
    }

    proptest! {
        #[test]
        fn no_value_asks_for_more_than_the_cap(value in ".{0,40}") {
            if let Some(pause) = pause(&value, at(0), HOUR) {
                prop_assert!(pause <= HOUR);
            }
        }

        #[test]
        fn any_number_of_seconds_is_taken(value in "[0-9]{1,40}") {
            let expected = value.parse::<u64>().map_or(HOUR, Duration::from_secs).min(HOUR);
            prop_assert_eq!(pause(&value, at(0), HOUR), Some(expected));
        }

        #[test]
        fn a_formatted_date_is_read_back(now in 0_u64..4_000_000_000, ahead in 0_u64..3600) {
            let date = httpdate::fmt_http_date(at(now + ahead));
            prop_assert_eq!(pause(&date, at(now), HOUR), Some(Duration::from_secs(ahead)));
        }
    }
}

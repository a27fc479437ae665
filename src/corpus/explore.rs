//! The report on corpora: how many of what, how long, how loud, what it looks like, what is wrong.
//!
//! In: a [`Scan`] and its [`Examination`]. Out: a [`Page`]. Clips that are spectrograms without audio
//! count in everything that needs no audio, and the page says where they do not.

use super::examine::{Examination, Finding, Heard};
use super::example::{self, Drawn};
use super::logmel::Spectra;
use super::parallel::{self, Interrupted, Watch};
use super::scan::{Scan, speakers};
use super::{Clip, Corpus, Sound, frames};
use crate::emotion::{EMOTIONS, Emotion};
use crate::features::FrontEnd;
use crate::report::{Axis, BarChart, HeatMap, Page, Section, Table, number, percent};

/// Bins of a histogram are multiples of this, s ...
const BIN_S: f64 = 0.25;
/// ... so that there are no more of them than this.
const MOST_BINS: f64 = 40.0;
/// Findings listed; a folder with more of them has another problem than its clips.
const MOST_FINDINGS: usize = 300;
/// What stands where there is nothing.
const NONE: &str = "–";

/// A clip that can be read.
struct Measured<'a> {
    clip: &'a Clip,
    heard: &'a Heard,
    /// Share of frames without voice.
    pauses: Option<f64>,
}

/// How often [`page`] tells of progress.
pub fn steps(scan: &Scan) -> usize {
    scan.clips.len() + EMOTIONS
}

/// Measures and draws. `name` is what the folder is called on the page.
///
/// # Errors
/// [`Interrupted`].
pub fn page(
    name: &str,
    scan: &Scan,
    examination: &Examination,
    spectra: &Spectra,
    watch: &Watch<'_>,
) -> Result<Page, Interrupted> {
    let front = FrontEnd::new();
    let pauses = parallel::map(&scan.clips, watch, |clip| {
        // A clip that cannot be read is among the findings already.
        frames::pauses(clip, spectra, &front).ok().flatten()
    })?;
    let measured: Vec<Measured<'_>> = scan
        .clips
        .iter()
        .zip(&examination.heard)
        .zip(pauses)
        .filter_map(|((clip, heard), pauses)| {
            heard.as_ref().map(|heard| Measured { clip, heard, pauses })
        })
        .collect();
    let examples = examples(scan, examination);
    let drawn = parallel::map(&examples, watch, |example| {
        example.and_then(|clip| example::draw(clip, spectra, &front).ok())
    })?;
    let lead = format!(
        "{} clips of {} corpora in {name}: counts, durations, levels, an example of each emotion, and \
         what is wrong with them.",
        number(scan.clips.len() as f64, 0),
        corpora(scan).len(),
    );
    Ok(Page::new("Speech emotion corpora", lead)
        .section(glance(scan, &measured))
        .section(emotions(scan))
        .section(durations(scan, &measured))
        .section(levels(scan, &measured))
        .section(drawings(&examples, drawn))
        .section(findings(scan, examination)))
}

/// Those that there is a clip of.
fn corpora(scan: &Scan) -> Vec<Corpus> {
    let there = |corpus: &Corpus| scan.clips.iter().any(|clip| clip.corpus == *corpus);
    Corpus::ALL.into_iter().filter(there).collect()
}

fn count(scan: &Scan, wanted: impl Fn(&Clip) -> bool) -> usize {
    scan.clips.iter().filter(|clip| wanted(clip)).count()
}

fn whole(count: usize) -> String {
    number(count as f64, 0)
}

fn is_audio(clip: &Clip) -> bool {
    matches!(clip.sound, Sound::File(_))
}

fn emotion_names() -> [&'static str; EMOTIONS] {
    Emotion::ALL.map(Emotion::name)
}

fn glance(scan: &Scan, measured: &[Measured<'_>]) -> Section {
    let mut table = Table::new(
        "What there is",
        ["corpus", "clips", "with audio", "hours", "speakers", "women", "men", "sex unknown"],
    );
    let mut row = |name: &str, wanted: &dyn Fn(&Clip) -> bool, total: bool| {
        let of = || scan.clips.iter().filter(|clip| wanted(clip));
        let heard = measured.iter().filter(|m| wanted(m.clip));
        let hours = heard.map(|m| m.heard.seconds).sum::<f64>() / 3_600.0;
        let [f, m, unknown] = ["F", "M", ""].map(|sex| speakers(of(), sex));
        let mut cells = vec![
            whole(of().count()),
            whole(of().filter(|clip| is_audio(clip)).count()),
            number(hours, 2),
        ];
        cells.extend([f + m + unknown, f, m, unknown].map(whole));
        let empty = Table::new("", [""; 0]);
        let filled = std::mem::replace(&mut table, empty);
        table = if total { filled.total(name, cells) } else { filled.row(name, cells) };
    };
    for corpus in corpora(scan) {
        row(corpus.name(), &|clip| clip.corpus == corpus, false);
    }
    row("all", &|_| true, true);
    let mut section = Section::new("At a glance").table(&table);
    let silent: Vec<&str> = corpora(scan)
        .into_iter()
        .filter(|c| scan.clips.iter().any(|clip| clip.corpus == *c && !is_audio(clip)))
        .map(Corpus::name)
        .collect();
    if !silent.is_empty() {
        section = section.note(format!(
            "Clips of {} come as spectrograms without audio. They count in everything here but levels \
             in dBFS, waveforms, spectrograms and chroma, which need audio.",
            silent.join(", ")
        ));
    }
    let notes = scan.notes();
    if notes.is_empty() { section } else { section.list(notes) }
}

fn emotions(scan: &Scan) -> Section {
    let names = corpora(scan);
    let columns = std::iter::once("corpus").chain(emotion_names()).chain(["all"]);
    let mut table = Table::new("Clips by corpus and emotion", columns);
    let cells = |wanted: &dyn Fn(&Clip) -> bool| {
        let of = |emotion| count(scan, |clip| wanted(clip) && clip.emotion == emotion);
        let mut cells: Vec<String> = Emotion::ALL.map(of).map(whole).into();
        cells.push(whole(count(scan, wanted)));
        cells
    };
    for &corpus in &names {
        table = table.row(corpus.name(), cells(&|clip| clip.corpus == corpus));
    }
    table = table.total("all", cells(&|_| true));

    let mut by_emotion = BarChart::new(
        "Clips by emotion and corpus",
        "emotion",
        emotion_names(),
        Axis::new("Clips"),
    )
    .stacked();
    for &corpus in &names {
        let of = |emotion| count(scan, |clip| clip.corpus == corpus && clip.emotion == emotion);
        by_emotion = by_emotion.series(corpus.name(), Emotion::ALL.map(|e| Some(of(e) as f64)));
    }
    let mut sexes = vec![("women", "F"), ("men", "M"), ("unknown", "")];
    sexes.retain(|(_, sex)| scan.clips.iter().any(|clip| clip.sex == *sex));
    let chart = |caption, label| {
        let names = names.iter().map(|corpus| corpus.name());
        BarChart::new(caption, "corpus", names, Axis::new(label)).stacked().size(450.0, 260.0)
    };
    let mut clips_by_sex = chart("Clips by the speaker's sex", "Clips");
    let mut speakers_by_sex = chart("Speakers by sex", "Speakers");
    for (name, sex) in sexes {
        let of = |corpus| count(scan, |clip| clip.corpus == corpus && clip.sex == sex);
        clips_by_sex =
            clips_by_sex.series(name, names.iter().map(|corpus| Some(of(*corpus) as f64)));
        let of = |corpus| speakers(scan.clips.iter().filter(|c| c.corpus == corpus), sex);
        speakers_by_sex =
            speakers_by_sex.series(name, names.iter().map(|corpus| Some(of(*corpus) as f64)));
    }
    Section::new("Emotions and speakers")
        .table(&table)
        .figure(by_emotion)
        .figures([speakers_by_sex, clips_by_sex])
}

fn durations(scan: &Scan, measured: &[Measured<'_>]) -> Section {
    let columns = |what| [what, "clips", "mean", "shortest", "median", "longest"];
    let row = |table: Table, name: &str, wanted: &dyn Fn(&Clip) -> bool| {
        let of = measured.iter().filter(|m| wanted(m.clip)).map(|m| m.heard.seconds);
        let Some(spread) = Spread::of(of) else { return table };
        let mut cells = vec![whole(spread.count)];
        cells.extend([spread.mean, spread.least, spread.median, spread.most].map(|s| number(s, 2)));
        table.row(name, cells)
    };
    let mut by_corpus = Table::new("Durations by corpus, s", columns("corpus"));
    for corpus in corpora(scan) {
        by_corpus = row(by_corpus, corpus.name(), &|clip| clip.corpus == corpus);
    }
    let mut by_emotion = Table::new("Durations by emotion, s", columns("emotion"));
    for emotion in Emotion::ALL {
        by_emotion = row(by_emotion, emotion.name(), &|clip| clip.emotion == emotion);
    }
    let means = by_corpus_and_emotion(
        scan,
        "Mean duration by corpus and emotion, s",
        Axis::new("Mean duration, s"),
        |m| Some(m.heard.seconds),
        measured,
    );
    let mut section = Section::new("Durations").table(&by_corpus).table(&by_emotion).figure(means);
    for corpus in corpora(scan) {
        if let Some(cut) = cut_short(corpus, measured) {
            section = section.note(cut);
        }
    }
    let histogram = |caption: &str, wanted: &dyn Fn(&Clip) -> bool| {
        let of: Vec<&Measured<'_>> = measured.iter().filter(|m| wanted(m.clip)).collect();
        histogram(caption, &corpora(scan), &of, longest(measured))
    };
    section
        .heading("Histograms")
        .text(format!("Bins of {} s, named by their lower ends.", bin_s(longest(measured))))
        .figure(histogram("All clips", &|_| true).size(720.0, 280.0))
        .heading("By emotion")
        .figures(
            Emotion::ALL
                .into_iter()
                .filter(|emotion| measured.iter().any(|m| m.clip.emotion == *emotion))
                .map(|emotion| histogram(emotion.name(), &|clip| clip.emotion == emotion)),
        )
}

fn longest(measured: &[Measured<'_>]) -> f64 {
    measured.iter().map(|m| m.heard.seconds).fold(BIN_S, f64::max)
}

/// Width of a histogram's bins, s.
fn bin_s(longest: f64) -> f64 {
    (longest / MOST_BINS / BIN_S).ceil() * BIN_S
}

fn histogram(
    caption: &str,
    corpora: &[Corpus],
    measured: &[&Measured<'_>],
    longest: f64,
) -> BarChart {
    let width = bin_s(longest);
    let bins = (longest / width) as usize + 1;
    let names = (0..bins).map(|bin| crate::report::short(bin as f64 * width));
    let mut chart = BarChart::new(caption, "duration, s", names, Axis::new("Clips"))
        .stacked()
        .bins()
        .size(450.0, 230.0);
    for &corpus in corpora {
        let mut counts = vec![0.0; bins];
        for m in measured.iter().filter(|m| m.clip.corpus == corpus) {
            if let Some(count) = counts.get_mut((m.heard.seconds / width) as usize) {
                *count += 1.0;
            }
        }
        chart = chart.series(corpus.name(), counts.into_iter().map(Some));
    }
    chart
}

/// An archive that holds the beginning of long clips only has many of exactly one length.
fn cut_short(corpus: Corpus, measured: &[Measured<'_>]) -> Option<String> {
    let of = measured.iter().filter(|m| m.clip.corpus == corpus && !is_audio(m.clip));
    let lengths: Vec<f64> = of.map(|m| m.heard.seconds).collect();
    let longest = lengths.iter().copied().fold(0.0, f64::max);
    let ended = lengths.iter().filter(|seconds| **seconds == longest).count();
    // Without a cut, the longest length is a rare one.
    let many = ended * 50 > lengths.len() && ended > 1;
    many.then(|| {
        format!(
            "{}: {} of {} spectrograms end at exactly {longest:.2} s. The archive holds no more of a \
             clip, so their durations are the least that the clips can have.",
            corpus.name(),
            whole(ended),
            whole(lengths.len()),
        )
    })
}

fn levels(scan: &Scan, measured: &[Measured<'_>]) -> Section {
    let mut table = Table::new(
        "Level of whole clips, dBFS (0 is a full-scale square wave), and the share without voice",
        [
            "corpus",
            "mean level",
            "quietest",
            "loudest",
            "without voice",
            "10 % have less than",
            "10 % have more than",
        ],
    );
    for corpus in corpora(scan) {
        let of = || measured.iter().filter(|m| m.clip.corpus == corpus);
        let level = Spread::of(of().filter_map(|m| Some(f64::from(m.heard.level?.mean_dbfs))));
        let pauses = Spread::of(of().filter_map(|m| m.pauses));
        let mut cells = match &level {
            Some(s) => [s.mean, s.least, s.most].map(|db| number(db, 1)).to_vec(),
            None => vec![NONE.to_owned(); 3],
        };
        cells.extend(match &pauses {
            Some(s) => [s.mean, s.low, s.high].map(|share| percent(share, 1)).to_vec(),
            None => vec![NONE.to_owned(); 3],
        });
        table = table.row(corpus.name(), cells);
    }
    let mut section = Section::new("Levels and silence")
        .text(
            "Without voice are the frames of 64 ms in which the service's own voice detector gives less \
             than even odds of speech: pauses, and silence before and behind.",
        )
        .table(&table);
    if scan.clips.iter().any(is_audio) {
        section = section.figure(by_corpus_and_emotion(
            scan,
            "Mean level by corpus and emotion, dBFS",
            Axis::new("Mean level, dBFS"),
            |m| m.heard.level.map(|level| f64::from(level.mean_dbfs)),
            measured,
        ));
    } else {
        section = section.note("No clip has audio, so there are no levels.");
    }
    section.figure(by_corpus_and_emotion(
        scan,
        "Mean share without voice by corpus and emotion",
        Axis::new("Share without voice").range(0.0, 1.0).percent(),
        |m| m.pauses,
        measured,
    ))
}

fn by_corpus_and_emotion(
    scan: &Scan,
    caption: &str,
    axis: Axis,
    value: impl Fn(&Measured<'_>) -> Option<f64>,
    measured: &[Measured<'_>],
) -> HeatMap {
    let corpora = corpora(scan);
    let mean = |corpus: Corpus, emotion: Emotion| {
        let of = measured.iter().filter(|m| (m.clip.corpus, m.clip.emotion) == (corpus, emotion));
        Spread::of(of.filter_map(&value)).map(|spread| spread.mean)
    };
    let cells = corpora.iter().map(|&c| Emotion::ALL.map(|emotion| mean(c, emotion)).into());
    let cells = cells.collect();
    let rows = corpora.iter().map(|corpus| corpus.name());
    HeatMap::new(caption, ("corpus", rows), ("emotion", emotion_names()), axis, cells)
}

/// For each emotion the clip of median duration of the first corpus that has one with audio, else of the
/// first that has one at all. Flawed ones are not taken.
fn examples<'a>(scan: &'a Scan, examination: &Examination) -> Vec<Option<&'a Clip>> {
    let left_out = examination.left_out();
    let sound: Vec<(&Clip, f64)> = scan
        .clips
        .iter()
        .zip(&examination.heard)
        .enumerate()
        .filter(|(index, _)| !left_out.contains_key(index))
        .filter_map(|(_, (clip, heard))| Some((clip, heard.as_ref()?.seconds)))
        .collect();
    let median = |emotion: Emotion, corpus: Corpus, audio: bool| {
        let wanted =
            |clip: &Clip| (clip.emotion, clip.corpus, is_audio(clip)) == (emotion, corpus, audio);
        let mut of: Vec<&(&Clip, f64)> = sound.iter().filter(|(clip, _)| wanted(clip)).collect();
        of.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.name.cmp(&b.0.name)));
        of.get(of.len() / 2).map(|(clip, _)| *clip)
    };
    let first = |emotion| {
        let places = [true, false].into_iter().flat_map(|audio| Corpus::ALL.map(|c| (c, audio)));
        places.into_iter().find_map(|(corpus, audio)| median(emotion, corpus, audio))
    };
    Emotion::ALL.map(first).into()
}

fn drawings(examples: &[Option<&Clip>], drawn: Vec<Option<Drawn>>) -> Section {
    let mut section = Section::new("What each emotion looks like").text(
        "One clip each: that of median duration in the first corpus with audio that has the emotion. One \
         speaker, one sentence: an illustration, no evidence. Frames of 64 ms every 16 ms at 16 kHz, as \
         the service computes them; full scale of the waveform is 1. Chroma is the power from 62.5 Hz to \
         5 kHz folded to twelve pitch classes (A4 = 440 Hz), each frame relative to its strongest class; \
         frames 50 dB below the loudest are dark. MFCCs are without coefficient 0, the level.",
    );
    for ((emotion, clip), drawn) in Emotion::ALL.into_iter().zip(examples).zip(drawn) {
        section = section.heading(emotion.name());
        let (Some(clip), Some(drawn)) = (clip, drawn) else {
            section = section.text("No clip.");
            continue;
        };
        section = section.text(described(clip));
        match drawn.waveform {
            Some(waveform) => section = section.figure(waveform),
            None => section = section.note("No corpus has it with audio; this is a spectrogram."),
        }
        section = section.figures(drawn.pictures);
    }
    section
}

fn described(clip: &Clip) -> String {
    let sex = match clip.sex.as_str() {
        "F" => "a woman",
        "M" => "a man",
        _ => "sex unknown",
    };
    let intensity = if clip.intensity.is_empty() {
        String::new()
    } else {
        format!(", intensity {}", clip.intensity)
    };
    let Clip { name, corpus, speaker, text, .. } = clip;
    format!("{name} of {corpus}: speaker {speaker} ({sex}), text {text}{intensity}.")
}

fn findings(scan: &Scan, examination: &Examination) -> Section {
    let section = Section::new("What is wrong");
    if examination.findings.is_empty() {
        return section.text(
            "Nothing: no duplicates, no silent, damaged, unreadable or far too short clips.",
        );
    }
    let left_out = examination.left_out();
    let mut table = Table::new("Findings", ["clips", "corpus", "what", "remedy"]).of_words();
    for finding in examination.findings.iter().take(MOST_FINDINGS) {
        let clips = finding.clips.iter().filter_map(|&index| scan.clips.get(index));
        let corpora: std::collections::BTreeSet<&str> =
            clips.map(|clip| clip.corpus.name()).collect();
        let corpora: Vec<&str> = corpora.into_iter().collect();
        let cells = [corpora.join(", "), finding.problem(), finding.remedy().to_owned()];
        table = table.row(names(scan, finding), cells);
    }
    let more = examination.findings.len().saturating_sub(MOST_FINDINGS);
    let section = section
        .text(format!(
            "Findings: {}. Clips better left out of training: {}; undertone corpus scan --write makes a \
             manifest without them.",
            whole(examination.findings.len()),
            whole(left_out.len()),
        ))
        .table(&table);
    if more > 0 { section.text(format!("{} more are not listed.", whole(more))) } else { section }
}

fn names(scan: &Scan, finding: &Finding) -> String {
    let clips = finding.clips.iter().filter_map(|&index| scan.clips.get(index));
    clips.map(|clip| clip.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// How values spread.
struct Spread {
    count: usize,
    mean: f64,
    least: f64,
    /// A tenth is below.
    low: f64,
    median: f64,
    /// A tenth is above.
    high: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let at = |share: f64| values.get(((count.max(1) - 1) as f64 * share).round() as usize);
        Some(Self {
            count,
            mean: values.iter().sum::<f64>() / count as f64,
            least: *values.first()?,
            low: *at(0.1)?,
            median: *at(0.5)?,
            high: *at(0.9)?,
            most: *values.last()?,
        })
    }
}

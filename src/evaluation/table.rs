//! An evaluation as text for a terminal.

use std::fmt::Write as _;

use super::outcome::{Detection, Evaluation, Figures, Part, RandomFigures, Summary};

/// A share as per cent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Mean and spread over folds, as per cent.
fn spread(summary: Option<&Summary>) -> String {
    match summary {
        Some(Summary { mean, spread_over_folds: Some(spread), .. }) => {
            format!("{} ±{}", percent(*mean), percent(*spread))
        }
        Some(Summary { mean, .. }) => percent(*mean),
        None => "-".to_owned(),
    }
}

fn share(summary: Option<&Summary>) -> String {
    summary.map_or_else(|| "-".to_owned(), |summary| percent(summary.mean))
}

fn nats(summary: Option<&Summary>) -> String {
    summary.map_or_else(|| "-".to_owned(), |summary| format!("{:.3}", summary.mean))
}

/// The text.
pub fn table(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_table(evaluation, &mut text);
    text
}

fn write_table(evaluation: &Evaluation, out: &mut String) -> std::fmt::Result {
    let parts: Vec<&Part> = evaluation.corpora.iter().chain(&evaluation.pooled).collect();
    if !parts.is_empty() {
        writeln!(
            out,
            "{:<9} {:>6} {:>5}  {:>11} {:>13} {:>11} {:>6} {:>6} {:>6} {:>5} {:>8}  {:>11}",
            "corpus",
            "clips",
            "spk.",
            "UA",
            "95 %",
            "worst fold",
            "WA",
            "F1",
            "NLL",
            "ECE",
            "together",
            "own UA"
        )?;
        for part in &parts {
            writeln!(out, "{}", figures_row(part, &part.open))?;
        }
        writeln!(
            out,
            "\nin per cent, ± over folds; NLL in nats; ECE: mean of each fold's, and of all folds' clips \
             together; own UA: among the labels of the corpus only"
        )?;
        write_conditions(&parts, out)?;
        write_course(&parts, out)?;
        write_rest(&parts, out)?;
    }
    if let Some(random) = &evaluation.random {
        writeln!(out, "\nrandom split    {:>6} {:>9} {:>7}", "clips", "accuracy", "NLL")?;
        let mut row = |name: &str, figures: &RandomFigures| {
            let accuracy = share(figures.accuracy.as_ref());
            let nll = nats(figures.nll.as_ref());
            writeln!(out, "  {name:<13} {:>6} {accuracy:>9} {nll:>7}", figures.clips)
        };
        row("all", &random.all)?;
        for (corpus, figures) in &random.corpora {
            row(corpus, figures)?;
        }
        writeln!(out, "{}", random.note)?;
    }
    writeln!(out)?;
    evaluation.notes.iter().try_for_each(|note| writeln!(out, "- {note}"))
}

fn figures_row(part: &Part, figures: &Figures) -> String {
    let interval = figures
        .ua_interval
        .map_or_else(|| "-".to_owned(), |i| format!("{}..{}", percent(i.low), percent(i.high)));
    let worst = figures
        .ua
        .as_ref()
        .and_then(|ua| ua.worst_fold)
        .map_or_else(|| "-".to_owned(), |w| format!("{} ({})", percent(w.value), w.fold));
    format!(
        "{:<9} {:>6} {:>5}  {:>11} {:>13} {:>11} {:>6} {:>6} {:>6} {:>5} {:>8}  {:>11}",
        part.corpus,
        part.clips,
        part.speakers,
        spread(figures.ua.as_ref()),
        interval,
        worst,
        share(figures.wa.as_ref()),
        share(figures.macro_f1.as_ref()),
        nats(figures.nll.as_ref()),
        share(figures.ece.as_ref()),
        share(figures.ece_together.as_ref()),
        spread(part.own_labels.ua.as_ref()),
    )
}

fn header(title: &str, parts: &[&Part], out: &mut String) -> std::fmt::Result {
    write!(out, "\n{title:<24}")?;
    parts.iter().try_for_each(|part| write!(out, " {:>14}", part.corpus))?;
    writeln!(out)
}

fn write_conditions(parts: &[&Part], out: &mut String) -> std::fmt::Result {
    let Some(first) = parts.first() else { return Ok(()) };
    header("UA by condition", parts, out)?;
    let mut approximated = false;
    for (index, condition) in first.conditions.iter().enumerate() {
        write!(out, "  {:<22}", condition.condition)?;
        for part in parts {
            let figures = part.conditions.get(index);
            let mark = figures.is_some_and(|figures| figures.approximated);
            approximated |= mark;
            let text = figures.and_then(|f| f.ua.as_ref().zip(f.ua_change)).map_or_else(
                || "-".to_owned(),
                |(ua, change)| {
                    let mark = if mark { "~" } else { "" };
                    format!("{mark}{} ({:+.1})", percent(ua.mean), 100.0 * change)
                },
            );
            write!(out, " {text:>14}")?;
        }
        writeln!(out)?;
    }
    if approximated {
        writeln!(out, "  ~ approximated on spectrograms, at least in part")?;
    }
    Ok(())
}

fn write_course(parts: &[&Part], out: &mut String) -> std::fmt::Result {
    header("UA by speech heard", parts, out)?;
    for (index, seconds) in super::outcome::COURSE_S.iter().enumerate() {
        write!(out, "  {:<22}", format!("{seconds} s"))?;
        for part in parts {
            let text = part.course.get(index).map_or_else(
                || "-".to_owned(),
                |point| {
                    let of = point
                        .share_of_final
                        .map_or_else(String::new, |share| format!(" ({:.0} %)", 100.0 * share));
                    format!("{}{of}", percent(point.ua.mean))
                },
            );
            write!(out, " {text:>14}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What is read off a corpus.
type Reading = fn(&Part) -> Option<String>;

fn ua_of(part: &Part, sex: &str) -> Option<String> {
    part.by_sex.get(sex)?.ua.as_ref().map(|ua| percent(ua.mean))
}

fn auc(detection: Option<&Detection>) -> Option<String> {
    detection.map(|detection| percent(detection.auc.mean))
}

/// What goes on one line per corpus.
fn write_rest(parts: &[&Part], out: &mut String) -> std::fmt::Result {
    header("further", parts, out)?;
    let lines: [(&str, Reading); 7] = [
        ("UA, women", |part| ua_of(part, "female")),
        ("UA, men", |part| ua_of(part, "male")),
        ("answered by default", |part| Some(percent(part.abstention.service_coverage))),
        ("  accuracy of those", |part| part.abstention.service_accuracy.map(percent)),
        ("distress AUC, all", |part| auc(part.distress.against_rest.as_ref())),
        ("  other emotions only", |part| auc(part.distress.against_other_emotions.as_ref())),
        ("no utterance found", |part| Some(part.unheard.to_string())),
    ];
    for (name, value) in lines {
        write!(out, "  {name:<22}")?;
        for part in parts {
            write!(out, " {:>14}", value(part).unwrap_or_else(|| "-".to_owned()))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

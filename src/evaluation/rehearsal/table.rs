//! A rehearsal as Markdown, for terminals and documents.

use std::fmt::Write as _;

use super::figures::{Alarms, Figures, Found, KindFigures, PolicyFigures};

/// The tables of every policy.
pub fn markdown(figures: &Figures) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(figures, &mut text);
    text
}

fn write_all(figures: &Figures, out: &mut String) -> std::fmt::Result {
    let settings = &figures.settings;
    let speakers: Vec<String> =
        settings.speakers.iter().map(|(corpus, count)| format!("{count} of {corpus}")).collect();
    writeln!(
        out,
        "{} conversations, {:.0} hours; speakers: {}; a clip is said {:.1} times in one (median).\n\
         Models: {}; seed {}. Thresholds were chosen on the folds {:?}; blind are the others.",
        settings.sessions,
        settings.hours,
        speakers.join(", "),
        settings.times_a_clip_is_said,
        settings.runs.join(", "),
        settings.seed,
        settings.chosen_on,
    )?;
    for policy in &figures.policies {
        write_policy(policy, out)?;
    }
    Ok(())
}

fn write_policy(policy: &PolicyFigures, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n### {} {}\n", policy.policy, policy.version)?;
    writeln!(
        out,
        "| acted | length | speakers | found (95 %) | delay, median | 90 % | by another rule |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for part in of_all(policy) {
        for kind in &part.kinds {
            writeln!(out, "{}", kind_row(part, kind))?;
        }
    }
    writeln!(
        out,
        "\n| speakers | hours of talk | high per hour (95 %) | medium | low | advisory | \
         speakers without any |\n|---|---|---|---|---|---|---|"
    )?;
    for part in &policy.parts {
        let rate = |severity: &str| part.alarms.get(severity).map_or_else(String::new, alarms);
        writeln!(
            out,
            "| {} | {:.1} | {} | {} | {} | {} | {} of {} |",
            part.part,
            part.talk_hours,
            rate("high"),
            rate("medium"),
            rate("low"),
            rate("advisory"),
            part.speakers_without_alarm,
            part.speakers
        )?;
    }
    write_rules(policy, out)
}

/// The parts that are no single corpus.
fn of_all(policy: &PolicyFigures) -> impl Iterator<Item = &Found> {
    policy.parts.iter().filter(|part| matches!(part.part.as_str(), "blind" | "chosen_on"))
}

fn write_rules(policy: &PolicyFigures, out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n| rule | severity | speakers | false alarms per hour | raised in |\n|---|---|---|---|---|"
    )?;
    for part in of_all(policy) {
        for rule in &part.rules {
            let raised: Vec<String> = rule
                .raised_in
                .iter()
                .map(|(kind, (raised, all))| {
                    format!("{kind}: {:.0} %", percent(*raised as f64 / (*all).max(1) as f64))
                })
                .collect();
            writeln!(
                out,
                "| {} | {} | {} | {} ({}) | {} |",
                rule.rule,
                rule.severity,
                part.part,
                rule.per_hour.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.2}")),
                rule.alarms,
                raised.join("; ")
            )?;
        }
    }
    Ok(())
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

fn kind_row(part: &Found, kind: &KindFigures) -> String {
    let seconds = |value: Option<f64>| {
        value.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.0} s"))
    };
    let found = match (kind.asked_for, kind.rate) {
        (true, Some(rate)) => {
            let between = kind.interval.map_or_else(String::new, |(low, high)| {
                format!(" ({:.0} to {:.0})", percent(low), percent(high))
            });
            format!("{:.0} %{between} of {}", percent(rate), kind.stretches)
        }
        _ => format!("not asked for; {}", kind.stretches),
    };
    format!(
        "| {} | {} | {} | {found} | {} | {} | {} |",
        kind.feeling,
        kind.length,
        part.part,
        seconds(kind.delay_median_s),
        seconds(kind.delay_90_s),
        kind.mistaken
    )
}

fn alarms(alarms: &Alarms) -> String {
    let Some(rate) = alarms.per_hour else { return "–".to_owned() };
    let between =
        alarms.interval.map_or_else(String::new, |(low, high)| format!(" ({low:.2} to {high:.2})"));
    format!("{rate:.2}{between}, {}", alarms.count)
}

//! An evaluation as one self-contained HTML page.

use super::metrics::{CalibrationBin, Interval, Point};
use super::outcome::{
    Detection, Distress, Evaluation, Figures, Material, Part, RandomFigures, Summary, Training,
};
use crate::report::{Axis, BarChart, HeatMap, LineChart, Page, Section, Table, number, percent};

/// What stands where there is no value.
const NOTHING: &str = "–";
/// Width of the charts that stand side by side, in px.
const SMALL_PX: f64 = 340.0;

/// The page.
pub fn page(evaluation: &Evaluation) -> Page {
    let parts: Vec<&Part> = evaluation.corpora.iter().chain(&evaluation.pooled).collect();
    let mut page = Page::new(title(evaluation), lead(evaluation)).section(judged(evaluation));
    if !parts.is_empty() {
        page = page
            .section(figures(&parts))
            .section(emotions(&parts))
            .section(calibration(&parts))
            .section(course(&parts))
            .section(abstention(&parts))
            .section(distress(&parts))
            .section(sexes(&parts))
            .section(robustness(&parts));
    }
    if let Some(section) = random(evaluation) {
        page = page.section(section);
    }
    page.section(models(evaluation))
}

fn title(evaluation: &Evaluation) -> String {
    let name = match (evaluation.protocol.name.as_str(), evaluation.models.first()) {
        ("", Some(model)) => &model.name,
        (name, _) => name,
    };
    format!("Evaluation of {name}")
}

fn lead(evaluation: &Evaluation) -> String {
    let protocol = &evaluation.protocol;
    let mut lead = if protocol.kind == "model" {
        "One model on every clip found; nobody has checked what it heard in training.".to_owned()
    } else if protocol.folds.is_empty() {
        "Random split only: clips that the models have not heard, of speakers that they have."
            .to_owned()
    } else {
        let (folds, seeds) = (protocol.folds.len(), protocol.seeds.len());
        let plural = |n: usize, one: &str| if n == 1 { one.to_owned() } else { format!("{one}s") };
        format!(
            "Unseen speakers: {folds} {} and {seeds} {}, each clip judged by models trained without \
             its speaker.",
            plural(folds, "fold"),
            plural(seeds, "seed")
        )
    };
    if !protocol.description.is_empty() {
        lead = format!("{} {lead}", protocol.description);
    }
    lead
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), |value| percent(value, 1))
}

fn mean(summary: Option<&Summary>) -> String {
    share(summary.map(|summary| summary.mean))
}

/// Mean and spread over folds, in per cent.
fn spread(summary: Option<&Summary>) -> String {
    match summary {
        Some(Summary { mean, spread_over_folds: Some(spread), .. }) => {
            format!("{} ± {}", number(100.0 * mean, 1), percent(*spread, 1))
        }
        other => mean(other),
    }
}

fn nats(summary: Option<&Summary>) -> String {
    summary.map_or_else(|| NOTHING.to_owned(), |summary| number(summary.mean, 3))
}

fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || NOTHING.to_owned(),
        |i| format!("{} to {}", number(100.0 * i.low, 1), percent(i.high, 1)),
    )
}

fn signed(points: f64) -> String {
    let sign = if points > 0.0 { "+" } else { "" };
    format!("{sign}{}", number(100.0 * points, 1))
}

fn ua_axis() -> Axis {
    Axis::new("UA (balanced accuracy)").range(0.0, 1.0).percent()
}

fn names(parts: &[&Part]) -> Vec<String> {
    parts.iter().map(|part| part.corpus.clone()).collect()
}

fn points(points: &[Point]) -> Vec<(f64, f64)> {
    points.iter().map(|point| (point.x, point.y)).collect()
}

fn judged(evaluation: &Evaluation) -> Section {
    let columns = [
        "corpus",
        "clips",
        "speakers",
        "emotions",
        "in training",
        "material",
        "no utterance found",
    ];
    let mut table = Table::new("Clips that were judged", columns);
    for part in &evaluation.corpora {
        let training = match part.training {
            Training::Trained => "yes",
            Training::Foreign => "no, foreign",
            Training::Mixed => "of some models",
            Training::Unknown => "not known",
        };
        let material = match part.material {
            Material::Audio => "audio",
            Material::Spectrograms => "spectrograms",
            Material::Mixed => "audio and spectrograms",
        };
        table = table.row(
            &part.corpus,
            [
                part.clips.to_string(),
                part.speakers.to_string(),
                part.labels.len().to_string(),
                training.to_owned(),
                material.to_owned(),
                part.unheard.to_string(),
            ],
        );
    }
    let mut section = Section::new("What was judged");
    if !evaluation.corpora.is_empty() {
        section = section.table(&table);
    }
    section
        .text(
            "Each clip went through the code of a live stream, in chunks of 100 ms: intake, voice \
             activity, utterances, model, calibration. What to know before reading on:",
        )
        .list(&evaluation.notes)
}

fn figures(parts: &[&Part]) -> Section {
    let table = |caption: &str, of: &dyn Fn(&Part) -> &Figures| {
        let columns = [
            "corpus",
            "UA",
            "95 % interval",
            "worst fold",
            "WA",
            "macro-F1",
            "NLL, nats",
            "ECE",
            "ECE, folds together",
        ];
        let mut table = Table::new(caption, columns);
        for part in parts {
            let figures = of(part);
            let worst = figures.ua.as_ref().and_then(|ua| ua.worst_fold).map_or_else(
                || NOTHING.to_owned(),
                |worst| format!("{} (fold {})", percent(worst.value, 1), worst.fold),
            );
            let cells = [
                spread(figures.ua.as_ref()),
                interval(figures.ua_interval),
                worst,
                spread(figures.wa.as_ref()),
                spread(figures.macro_f1.as_ref()),
                nats(figures.nll.as_ref()),
                mean(figures.ece.as_ref()),
                mean(figures.ece_together.as_ref()),
            ];
            table = if part.corpus == "pooled" {
                table.total(&part.corpus, cells)
            } else {
                table.row(&part.corpus, cells)
            };
        }
        table
    };
    let value = |of: &dyn Fn(&Part) -> Option<f64>| parts.iter().map(|p| of(p)).collect::<Vec<_>>();
    let ends = |of: &dyn Fn(&Part) -> Option<Interval>| {
        parts.iter().map(|p| of(p).map(|i| (i.low, i.high))).collect::<Vec<_>>()
    };
    let ua = |figures: &Figures| figures.ua.as_ref().map(|ua| ua.mean);
    let chart = BarChart::new(
        "UA by corpus; whiskers are 95 % intervals, by bootstrap over speakers",
        "corpus",
        names(parts),
        ua_axis(),
    )
    .series("all labels", value(&|part| ua(&part.open)))
    .intervals(ends(&|part| part.open.ua_interval))
    .series("own labels", value(&|part| ua(&part.own_labels)))
    .intervals(ends(&|part| part.own_labels.ua_interval));
    let mut section = Section::new("Figures")
        .text(
            "UA is the mean of the recalls of the emotions, WA plain accuracy. Means over folds; ± is \
             the standard deviation over folds. Intervals are of all clips together. ECE is the mean of \
             what each fold's clips show, and beside it that of the clips of all folds together: few clips \
             never look quite calibrated.",
        )
        .table(&table("Open: the model chooses among all its labels", &|part| &part.open))
        .table(&table("Own labels: only those that the corpus has", &|part| &part.own_labels))
        .figure(chart);
    if let Some(table) = seeds(parts) {
        section = section.table(&table);
    }
    section
}

/// What a seed makes, where there are several.
fn seeds(parts: &[&Part]) -> Option<Table> {
    let columns = ["corpus", "UA", "± over folds", "± over seeds"];
    let mut table = Table::new("Spread over folds and over seeds, open", columns);
    let mut any = false;
    for part in parts {
        let ua = part.open.ua.as_ref()?;
        any |= ua.spread_over_seeds.is_some();
        let cells = [percent(ua.mean, 1), share(ua.spread_over_folds), share(ua.spread_over_seeds)];
        table = table.row(&part.corpus, cells);
    }
    any.then_some(table)
}

fn emotions(parts: &[&Part]) -> Section {
    let all = parts.first().map(|part| part.confusion.emotions).unwrap_or_default();
    let axis = Axis::new("Recall").range(0.0, 1.0).percent();
    let mut chart = BarChart::new("Recall per emotion, open", "emotion", all, axis);
    for part in parts {
        let recall = all.map(|emotion| part.recall.get(emotion).map(|recall| recall.mean));
        chart = chart.series(&part.corpus, recall);
    }
    let mut section = Section::new("Emotion by emotion").figure(chart);
    for part in parts {
        let rows = part.confusion.emotions.iter().zip(part.confusion.counts.0);
        let occurring = rows.filter(|(_, counts)| counts.iter().sum::<u64>() > 0);
        let (truths, cells): (Vec<_>, Vec<_>) = occurring
            .map(|(emotion, counts)| {
                let all = counts.iter().sum::<u64>() as f64;
                (*emotion, counts.map(|count| Some(count as f64 / all)).to_vec())
            })
            .unzip();
        section = section.figure(HeatMap::new(
            format!("Confusion in {}: what acted emotions (rows) are taken for", part.corpus),
            ("acted", truths),
            ("heard", part.confusion.emotions),
            Axis::new("Share of the acted").range(0.0, 1.0).percent(),
            cells,
        ));
    }
    section
}

fn calibration(parts: &[&Part]) -> Section {
    let curve = |bins: &[CalibrationBin]| {
        let filled = bins.iter().filter_map(|bin| Some((bin.confidence?, bin.accuracy?)));
        filled.collect::<Vec<_>>()
    };
    let axis = |label| Axis::new(label).range(0.0, 1.0).percent();
    let mut chart = LineChart::new(
        "Accuracy of the top emotion against its probability, in 15 bins",
        axis("Confidence"),
        axis("Accuracy"),
    )
    .diagonal("perfectly calibrated");
    for part in parts {
        chart = chart.series(&part.corpus, curve(&part.calibration));
    }
    Section::new("Calibration")
        .text(
            "A probability means something if emotions told with 60 % are right in 60 % of the cases. \
             Below the diagonal the model is surer than it may be. Ends of the curves rest on few clips.",
        )
        .figure(chart)
}

fn course(parts: &[&Part]) -> Section {
    let mut chart =
        LineChart::new("UA against speech heard", Axis::new("Speech heard, s"), ua_axis());
    let mut columns = vec!["speech heard".to_owned()];
    columns.extend(names(parts));
    let mut table = Table::new("UA by speech heard, and its share of the final UA", columns);
    for part in parts {
        let line = part.course.iter().map(|point| (point.seconds, point.ua.mean));
        chart = chart.series(&part.corpus, line);
    }
    for (index, seconds) in super::outcome::COURSE_S.iter().enumerate() {
        let cell = |part: &&Part| {
            part.course.get(index).map_or_else(
                || NOTHING.to_owned(),
                |point| {
                    let of = point
                        .share_of_final
                        .map_or_else(String::new, |share| format!(" ({})", percent(share, 0)));
                    format!("{}{of}", percent(point.ua.mean, 1))
                },
            )
        };
        table = table.row(format!("{seconds} s"), parts.iter().map(cell));
    }
    Section::new("How much speech it takes")
        .text(
            "A clip that is shorter counts with its last estimate; one without an estimate by then is \
             wrong.",
        )
        .figure(chart)
        .table(&table)
}

fn abstention(parts: &[&Part]) -> Section {
    let axis = |label| Axis::new(label).range(0.0, 1.0).percent();
    let mut chart = LineChart::new(
        "Accuracy of the clips that are answered, the least sure ones left out first",
        axis("Coverage"),
        axis("Accuracy"),
    );
    let columns = ["corpus", "area under the curve", "answered by default", "accuracy", "UA"];
    let mut table = Table::new("The service's own rule: enough speech, enough confidence", columns);
    for part in parts {
        let abstention = &part.abstention;
        chart = chart.series(&part.corpus, points(&abstention.curve));
        table = table.row(
            &part.corpus,
            [
                mean(abstention.area.as_ref()),
                percent(abstention.service_coverage, 1),
                share(abstention.service_accuracy),
                share(abstention.service_ua),
            ],
        );
    }
    Section::new("When it may say nothing")
        .text("A model that knows when it does not know gets better as it answers less.")
        .figure(chart)
        .table(&table)
}

fn distress(parts: &[&Part]) -> Section {
    let chart = |caption: &str, of: &dyn Fn(&Distress) -> Option<&Detection>| {
        let axis = |label| Axis::new(label).range(0.0, 1.0).percent();
        let mut chart =
            LineChart::new(caption, axis("False alarms"), axis("Hits")).size(SMALL_PX, 300.0);
        for part in parts {
            if let Some(detection) = of(&part.distress) {
                chart = chart.series(&part.corpus, points(&detection.roc));
            }
        }
        chart.diagonal("chance")
    };
    let columns = ["corpus", "positives are", "positives", "AUC, all", "AUC, other emotions"];
    let mut table = Table::new("Area under the ROC of the estimate's distress", columns);
    for part in parts {
        let distress = &part.distress;
        let auc = |detection: Option<&Detection>| {
            detection.map_or_else(
                || NOTHING.to_owned(),
                |d| format!("{} ({} negatives)", number(d.auc.mean, 3), d.negatives),
            )
        };
        let rule = match (part.corpus.as_str(), distress.by_intensity) {
            ("pooled", _) => "those of each corpus",
            (_, true) => "high intensity",
            (_, false) => "any intensity",
        };
        table = table.row(
            &part.corpus,
            [
                rule.to_owned(),
                distress.positives.to_string(),
                auc(distress.against_rest.as_ref()),
                auc(distress.against_other_emotions.as_ref()),
            ],
        );
    }
    Section::new("Distress")
        .text(
            "Positives are clips of anger, fear, sadness and disgust at high intensity. Against all the \
             rest, weaker clips of the same emotions (in CREMA-D most, whose intensity is not given) are \
             negatives; against other emotions they are left out. Where a corpus has no intensities, all \
             clips of the four emotions are positives.",
        )
        .figures([
            chart("ROC against all the rest", &|distress| distress.against_rest.as_ref()),
            chart("ROC against other emotions", &|d| d.against_other_emotions.as_ref()),
        ])
        .table(&table)
}

fn sexes(parts: &[&Part]) -> Section {
    let parts: Vec<&Part> = parts.iter().copied().filter(|part| !part.by_sex.is_empty()).collect();
    let mut chart = BarChart::new(
        "UA by the speakers' sex, open; whiskers are 95 % intervals",
        "corpus",
        names(&parts),
        ua_axis(),
    );
    let columns = ["corpus", "women: clips, speakers", "UA", "men: clips, speakers", "UA"];
    let mut table = Table::new("UA by the speakers' sex, open", columns);
    for (sex, name) in [("female", "women"), ("male", "men")] {
        let of = |part: &&Part| part.by_sex.get(sex)?.ua.as_ref().map(|ua| ua.mean);
        let ends = |part: &&Part| part.by_sex.get(sex)?.ua_interval.map(|i| (i.low, i.high));
        chart = chart
            .series(name, parts.iter().map(of).collect::<Vec<_>>())
            .intervals(parts.iter().map(ends).collect::<Vec<_>>());
    }
    for part in &parts {
        let cells = ["female", "male"].into_iter().flat_map(|sex| {
            part.by_sex.get(sex).map_or_else(
                || [NOTHING.to_owned(), NOTHING.to_owned()],
                |figures| {
                    let count = format!("{}, {}", figures.clips, figures.speakers);
                    [count, spread(figures.ua.as_ref())]
                },
            )
        });
        table = table.row(&part.corpus, cells.collect::<Vec<_>>());
    }
    let section = Section::new("Women and men");
    if parts.is_empty() {
        return section.text("The speakers' sex is not known.");
    }
    section.figure(chart).table(&table)
}

fn robustness(parts: &[&Part]) -> Section {
    let conditions: Vec<&str> = parts
        .first()
        .map(|part| part.conditions.iter().map(|figures| figures.condition).collect())
        .unwrap_or_default();
    let mut chart =
        BarChart::new("UA by condition, open", "condition", conditions.clone(), ua_axis())
            .size(900.0, 320.0);
    for part in parts {
        let values: Vec<_> =
            part.conditions.iter().map(|c| c.ua.as_ref().map(|ua| ua.mean)).collect();
        chart = chart.series(&part.corpus, values);
    }
    let mut columns = vec!["condition".to_owned()];
    columns.extend(names(parts));
    let caption = "UA, and its change against the same clips clean, in points; ~ approximated";
    let mut table = Table::new(caption, columns);
    for (index, condition) in conditions.iter().enumerate() {
        let cell = |part: &&Part| {
            let figures = part.conditions.get(index)?;
            let mark = if figures.approximated { "~" } else { "" };
            let ua = percent(figures.ua.as_ref()?.mean, 1);
            Some(format!("{mark}{ua} ({})", signed(figures.ua_change?)))
        };
        let cells: Vec<String> =
            parts.iter().map(|part| cell(part).unwrap_or_else(|| NOTHING.to_owned())).collect();
        table = table.row(*condition, cells);
    }
    let described = super::Condition::ALL
        .into_iter()
        .filter(|condition| conditions.contains(&condition.name()))
        .map(|condition| format!("{condition}: {}", condition.describe()));
    Section::new("Robustness").figure(chart).table(&table).list(described.collect::<Vec<_>>())
}

fn random(evaluation: &Evaluation) -> Option<Section> {
    let random = evaluation.random.as_ref()?;
    let columns = ["clips of", "clips", "accuracy", "UA", "NLL, nats"];
    let mut table = Table::new("Random split", columns);
    let cells = |figures: &RandomFigures| {
        [
            figures.clips.to_string(),
            mean(figures.accuracy.as_ref()),
            mean(figures.ua.as_ref()),
            nats(figures.nll.as_ref()),
        ]
    };
    for (corpus, figures) in &random.corpora {
        table = table.row(corpus, cells(figures));
    }
    table = table.total("all", cells(&random.all));
    Some(Section::new("Random split").note(random.note).table(&table))
}

fn models(evaluation: &Evaluation) -> Section {
    let columns =
        ["run", "kind", "fold", "seed", "clips", "model", "temperature", "trained on", "SHA-256"];
    let mut table = Table::new("Models", columns);
    for model in &evaluation.models {
        let or_nothing = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
        let trained_on = match model.trained_on.as_slice() {
            [] => "not said".to_owned(),
            corpora => corpora.join(", "),
        };
        table = table.row(
            &model.run,
            [
                model.kind.to_owned(),
                or_nothing(model.fold.map(|fold| fold.to_string())),
                or_nothing(model.seed.map(|seed| seed.to_string())),
                model.clips.to_string(),
                format!("{} {}", model.name, model.version),
                format!("{}", model.temperature),
                trained_on,
                // Enough to tell models apart; evaluation.json has all of it.
                model.sha256.chars().take(12).collect(),
            ],
        );
    }
    let settings = &evaluation.settings;
    Section::new("Models and settings").table(&table).list([
        format!("Fingerprint of the clips: {}", evaluation.corpora_fingerprint),
        format!(
            "Voice activity: on {}, off {}, least speech {} s, hang-over {} s, lead-in {} s",
            settings.voice_on,
            settings.voice_off,
            number(settings.voice_min_speech_s, 3),
            number(settings.voice_hang_over_s, 3),
            number(settings.voice_lead_in_s, 3)
        ),
        format!(
            "An answer needs {} s of speech and a confidence of {}",
            number(settings.min_speech_s, 3),
            settings.min_confidence
        ),
        format!(
            "Chunks of {} s; bootstrap of {} resamples",
            settings.chunk_s, settings.bootstrap_resamples
        ),
    ])
}

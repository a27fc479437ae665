//! Labels out of file names, one rule per corpus.

use super::Corpus;
use crate::emotion::Emotion;

/// What a file name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The corpus.
    pub corpus: Corpus,
    /// What was acted.
    pub emotion: Emotion,
    /// Intensity as the corpus calls it.
    pub intensity: &'static str,
    /// Speaker, unique over the corpora.
    pub speaker: String,
    /// `F`, `M` or unknown.
    pub sex: &'static str,
    /// Code of the sentence or word.
    pub text: String,
}

/// Reads a file's name without extension; `folder` is the name of its folder, which SAVEE needs where
/// each speaker has one. `None` if no corpus names its files so.
pub fn read(stem: &str, folder: &str) -> Option<Label> {
    ravdess(stem).or_else(|| crema_d(stem)).or_else(|| tess(stem)).or_else(|| savee(stem, folder))
}

/// `03-01-06-01-02-01-12`: modality (03 audio), channel (01 speech, 02 song), emotion, intensity,
/// statement, repetition, actor; odd actors are men.
fn ravdess(stem: &str) -> Option<Label> {
    let parts: Vec<&str> = stem.split('-').collect();
    let &[modality, channel, emotion, intensity, statement, _repetition, actor] = parts.as_slice()
    else {
        return None;
    };
    if modality != "03" || channel != "01" {
        return None;
    }
    let emotion = match emotion {
        "01" => Emotion::Neutral,
        "02" => Emotion::Calm,
        "03" => Emotion::Happy,
        "04" => Emotion::Sad,
        "05" => Emotion::Angry,
        "06" => Emotion::Fear,
        "07" => Emotion::Disgust,
        "08" => Emotion::Surprise,
        _ => return None,
    };
    let intensity = match intensity {
        "01" => "normal",
        "02" => "strong",
        _ => return None,
    };
    let statement: u32 = statement.parse().ok()?;
    let actor: u32 = actor.parse().ok().filter(|actor| (1..=24).contains(actor))?;
    Some(Label {
        corpus: Corpus::Ravdess,
        emotion,
        intensity,
        speaker: format!("ravdess-{actor:02}"),
        sex: if actor % 2 == 1 { "M" } else { "F" },
        text: format!("S{statement}"),
    })
}

/// `1001_DFA_ANG_XX`: actor, sentence, emotion, intensity.
fn crema_d(stem: &str) -> Option<Label> {
    let parts: Vec<&str> = stem.split('_').collect();
    let &[actor, sentence, emotion, intensity] = parts.as_slice() else {
        return None;
    };
    if actor.len() != 4 || !actor.starts_with('1') || actor.parse::<u32>().is_err() {
        return None;
    }
    let emotion = match emotion {
        "NEU" => Emotion::Neutral,
        "HAP" => Emotion::Happy,
        "SAD" => Emotion::Sad,
        "ANG" => Emotion::Angry,
        "FEA" => Emotion::Fear,
        "DIS" => Emotion::Disgust,
        _ => return None,
    };
    let intensity = match intensity {
        "LO" => "low",
        "MD" => "medium",
        "HI" => "high",
        // One file is published as `X`.
        "XX" | "X" => "unspecified",
        _ => return None,
    };
    Some(Label {
        corpus: Corpus::CremaD,
        emotion,
        intensity,
        speaker: format!("crema-d-{actor}"),
        sex: "",
        text: sentence.to_owned(),
    })
}

/// `OAF_back_angry`, `YAF_dog_ps`: speaker (older and younger actress), word, emotion. Some files are
/// published as `OA_…`.
fn tess(stem: &str) -> Option<Label> {
    let (speaker, rest) = stem.split_once('_')?;
    let speaker = match speaker {
        "OAF" | "OA" => "OAF",
        "YAF" | "YA" => "YAF",
        _ => return None,
    };
    let (word, emotion) = rest.rsplit_once('_')?;
    let emotion = match emotion.to_ascii_lowercase().as_str() {
        "neutral" => Emotion::Neutral,
        "happy" => Emotion::Happy,
        "sad" => Emotion::Sad,
        "angry" => Emotion::Angry,
        "fear" => Emotion::Fear,
        "disgust" => Emotion::Disgust,
        "ps" => Emotion::Surprise,
        _ => return None,
    };
    Some(Label {
        corpus: Corpus::Tess,
        emotion,
        intensity: "",
        speaker: format!("tess-{speaker}"),
        sex: "F",
        text: word.to_owned(),
    })
}

/// `DC_a01`, or `a01` in a folder `DC`: speaker, emotion, number of the sentence. The speakers are men.
fn savee(stem: &str, folder: &str) -> Option<Label> {
    let (speaker, rest) = stem.split_once('_').unwrap_or((folder, stem));
    if !matches!(speaker, "DC" | "JE" | "JK" | "KL") {
        return None;
    }
    let letters = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = rest.get(letters.len()..)?.parse().ok()?;
    let emotion = match letters {
        "a" => Emotion::Angry,
        "d" => Emotion::Disgust,
        "f" => Emotion::Fear,
        "h" => Emotion::Happy,
        "n" => Emotion::Neutral,
        "sa" => Emotion::Sad,
        "su" => Emotion::Surprise,
        _ => return None,
    };
    Some(Label {
        corpus: Corpus::Savee,
        emotion,
        intensity: "",
        speaker: format!("savee-{speaker}"),
        sex: "M",
        text: format!("{letters}{number:02}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_corpus_names_its_files_its_own_way() {
        let cases = [
            (
                "03-01-06-02-01-02-12",
                "Actor_12",
                Corpus::Ravdess,
                Emotion::Fear,
                "ravdess-12",
                "F",
                "S1",
            ),
            (
                "03-01-01-01-02-01-07",
                "",
                Corpus::Ravdess,
                Emotion::Neutral,
                "ravdess-07",
                "M",
                "S2",
            ),
            (
                "1001_DFA_ANG_XX",
                "AudioWAV",
                Corpus::CremaD,
                Emotion::Angry,
                "crema-d-1001",
                "",
                "DFA",
            ),
            ("1040_ITH_SAD_X", "AudioWAV", Corpus::CremaD, Emotion::Sad, "crema-d-1040", "", "ITH"),
            ("OAF_back_angry", "OAF_angry", Corpus::Tess, Emotion::Angry, "tess-OAF", "F", "back"),
            (
                "YAF_dog_ps",
                "YAF_pleasant_surprised",
                Corpus::Tess,
                Emotion::Surprise,
                "tess-YAF",
                "F",
                "dog",
            ),
            (
                "OA_bite_neutral",
                "OAF_neutral",
                Corpus::Tess,
                Emotion::Neutral,
                "tess-OAF",
                "F",
                "bite",
            ),
            ("DC_sa01", "ALL", Corpus::Savee, Emotion::Sad, "savee-DC", "M", "sa01"),
            ("su15", "KL", Corpus::Savee, Emotion::Surprise, "savee-KL", "M", "su15"),
        ];
        for (stem, folder, corpus, emotion, speaker, sex, text) in cases {
            let label = read(stem, folder).unwrap_or_else(|| panic!("{stem}"));
            assert_eq!((label.corpus, label.emotion), (corpus, emotion), "{stem}");
            assert_eq!((label.speaker.as_str(), label.sex), (speaker, sex), "{stem}");
            assert_eq!(label.text, text, "{stem}");
        }
    }

    #[test]
    fn other_files_are_no_clips() {
        for stem in [
            "03-02-06-02-01-02-12", // song
            "01-01-06-02-01-02-12", // video
            "03-01-09-01-01-01-01",
            "03-01-01-01-01-01-25",
            "1001_DFA_XYZ_XX",
            "abc_DFA_ANG_XX",
            "XAF_back_angry",
            "OAF_back_bored",
            "DC_x01",
            "AB_a01",
            "a01",
            "readme",
            "",
        ] {
            assert_eq!(read(stem, ""), None, "{stem}");
        }
    }
}

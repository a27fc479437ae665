use super::*;
use crate::audio::ErrorKind;
use crate::audio::synthesis::{noise_bytes, tone};

fn path(name: &str) -> String {
    format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("run tests/data/make_containers.sh")
}

fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, extension)| extension)
}

fn open(name: &str) -> Result<ClipReader, AudioError> {
    let opened = ClipReader::open(path(name));
    let in_memory = ClipReader::from_bytes(bytes(name).into(), extension(name));
    assert_eq!(opened.is_ok(), in_memory.is_ok(), "{name}");
    opened
}

fn read_all(reader: &mut ClipReader) -> Vec<f32> {
    let mut samples = Vec::new();
    while let Some(packet) = reader.next_packet().unwrap() {
        samples.extend_from_slice(packet);
    }
    samples
}

/// Every supported container, with rate, channels, frames, and the codec's name.
const CLIPS: [(&str, u32, usize, u64, &str); 11] = [
    ("tone_16k_mono.wav", 16_000, 1, 16_000, "pcm_s16le"),
    ("tone_8k_mulaw.wav", 8_000, 1, 8_000, "pcm_mulaw"),
    ("tone_8k_float_stereo.wav", 8_000, 2, 2_000, "pcm_f32le"),
    ("tone_16k_adpcm.wav", 16_000, 1, 16_000, "adpcm_ima_wav"),
    ("tone_16k.flac", 16_000, 1, 16_000, "flac"),
    ("tone_44k_stereo.ogg", 44_100, 2, 44_100, "vorbis"),
    ("tone_24k.mp3", 24_000, 1, 24_000, "mp3"),
    ("tone_48k_stereo.m4a", 48_000, 2, 48_000, "aac"),
    ("tone_16k_alac.m4a", 16_000, 1, 16_000, "alac"),
    ("tone_11k.aiff", 11_025, 1, 11_025, "pcm_s16be"),
    ("tone_44k_stereo.mkv", 44_100, 2, 44_100, "vorbis"),
];

#[test]
fn every_container_gives_the_tone_that_went_in() {
    for (name, rate_hz, channels, frames, codec) in CLIPS {
        let mut reader = open(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(reader.rate_hz(), rate_hz, "{name}");
        assert_eq!(reader.channels().get(), channels, "{name}");
        assert_eq!(reader.codec(), codec, "{name}");
        let samples = read_all(&mut reader);
        assert_eq!(samples.len() as u64, reader.frames() * channels as u64);
        // Lossy codecs end on a whole block where the container does not say otherwise.
        assert!(reader.frames().abs_diff(frames) <= 2_048, "{name}: {}", reader.frames());
        assert_eq!(reader.corrupt_packets(), 0, "{name}");
        assert!(!reader.is_cut_short(), "{name}");
        let channel =
            |c: usize| -> Vec<f32> { samples.iter().skip(c).step_by(channels).copied().collect() };
        let middle = reader.frames() as usize / 4..reader.frames() as usize * 3 / 4;
        let (level, _) = tone(&channel(0)[middle.clone()], 440.0, f64::from(rate_hz));
        // MP3 at 24 kbit/s is off by 5 %, all others by less than 1 %.
        assert!((level - 0.25).abs() < 0.02, "{name}: {level}");
        if channels == 2 {
            let (level, _) = tone(&channel(1)[middle], 440.0, f64::from(rate_hz));
            assert!(level < 0.005, "{name}: {level} on the silent channel");
        }
    }
}

#[test]
fn time_zero_is_the_first_sample_that_was_encoded() {
    // AAC in MP4 is late by its encoder's delay, see the module's documentation.
    for (name, rate_hz, channels, ..) in CLIPS.into_iter().filter(|clip| clip.4 != "aac") {
        let mut reader = open(name).unwrap();
        let samples = read_all(&mut reader);
        let left: Vec<f32> = samples.iter().step_by(channels).copied().collect();
        let length = rate_hz as usize / 10;
        let (_, phase) = tone(&left[length..2 * length], 440.0, f64::from(rate_hz));
        // A tenth of a second is 44 periods of 440 Hz, but for the rounding of `length`.
        let expected = std::f64::consts::TAU * 440.0 * length as f64 / f64::from(rate_hz);
        let turns = (phase - expected) / std::f64::consts::TAU;
        let late_ms = -(turns - turns.round()) / 440.0 * 1e3;
        assert!(late_ms.abs() < 0.1, "{name} is {late_ms} ms late (modulo 2.27 ms)");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let message = |name: &str, kind| {
        let error = open(name).err().unwrap_or_else(|| panic!("{name} was opened"));
        assert_eq!(error.kind(), kind, "{name}: {error}");
        error.to_string()
    };
    for name in ["opus.ogg", "opus.webm"] {
        let text = message(name, ErrorKind::Format);
        assert!(text.starts_with("Opus in a") && text.contains("FLAC"), "{text}");
    }
    let text = message("video_only.mkv", ErrorKind::Format);
    assert!(text.contains("no audio track, but 1 video track"), "{text}");
    let text = message("rate_3k.wav", ErrorKind::Format);
    assert!(text.contains("4000 to 192000 Hz, not 3000"), "{text}");
    let text = message("sixteen_channels.wav", ErrorKind::Format);
    assert!(text.contains("1 to 8, not 16"), "{text}");
    assert!(message("no_samples.wav", ErrorKind::Data).contains("empty"));
    let text = message("make_containers.sh", ErrorKind::Format);
    assert!(text.contains("not a known audio container"), "{text}");
}

#[test]
fn nothing_and_noise_are_refused() {
    let empty = ClipReader::from_bytes(Bytes::new(), Some("wav"));
    assert!(matches!(empty.err(), Some(AudioError::Empty { bytes: 0 })));
    for hint in [None, Some("mp3"), Some("wav"), Some("m4a")] {
        let noise = ClipReader::from_bytes(noise_bytes(1, 20_000).into(), hint);
        assert!(noise.is_err(), "hint {hint:?}");
    }
    let missing = ClipReader::open(path("missing.wav")).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::Io);
}

#[test]
fn a_panic_of_symphonia_is_the_error_of_that_file() {
    // 32,767 channels of four bytes overflow its sum where overflow is checked; found by fuzzing.
    let mut header = bytes("tone_16k_mono.wav");
    header[22..24].copy_from_slice(&0x7fff_u16.to_le_bytes());
    header[34..36].copy_from_slice(&32_u16.to_le_bytes());
    let error = ClipReader::from_bytes(header.into(), Some("wav")).err().unwrap();
    assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Format), "{error}");
}

#[test]
fn a_file_that_is_cut_short_gives_what_it_has() {
    for (name, ..) in CLIPS {
        let whole = bytes(name);
        let frames = {
            let mut reader = open(name).unwrap();
            read_all(&mut reader);
            reader.frames()
        };
        // Behind the 8 KiB of padding that ffmpeg leaves in a FLAC header.
        let part = whole[..whole.len() * 3 / 4].to_vec();
        match ClipReader::from_bytes(part.into(), extension(name)) {
            Ok(mut reader) => {
                while let Ok(Some(_)) = reader.next_packet() {}
                assert!(reader.frames() < frames, "{name}: {}", reader.frames());
                assert!(reader.frames() > frames / 8, "{name}: {}", reader.frames());
            }
            // Readers of the other containers want what lies at the end, or a whole page.
            Err(error) => {
                let must_open = ["wav", "flac", "mp3"];
                assert!(!must_open.iter().any(|end| name.ends_with(end)), "{name}: {error}");
                assert_eq!(error.kind(), ErrorKind::Data, "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_corrupt_packet_is_skipped_and_counted() {
    for name in ["tone_16k.flac", "tone_24k.mp3"] {
        let mut damaged = bytes(name);
        let middle = damaged.len() / 2;
        damaged[middle..middle + 40].fill(0x55);
        let mut reader = ClipReader::from_bytes(damaged.into(), extension(name)).unwrap();
        let samples = read_all(&mut reader);
        let intact = open(name).unwrap().total_frames().unwrap();
        assert!(samples.len() as u64 > intact / 2, "{name}: {} of {intact}", samples.len());
    }
}

#[test]
fn damaged_files_never_panic() {
    for (name, ..) in CLIPS {
        let whole = bytes(name);
        for seed in 0..24 {
            let mut damaged = whole.clone();
            for (n, byte) in noise_bytes(seed, 12).chunks(2).enumerate() {
                let at = (usize::from(byte[0]) * 257 + n * 7_919) * (seed as usize + 1);
                // The first bytes are where headers are.
                let at = if n % 2 == 0 { at % whole.len() } else { at % whole.len().min(200) };
                damaged[at] = byte[1];
            }
            drive(damaged.into(), extension(name));
        }
    }
}

fn drive(bytes: Bytes, hint: Option<&str>) {
    let Ok(reader) = ClipReader::from_bytes(bytes, hint) else { return };
    let Ok(mut clip) = ClipHops::new(reader, &[Lane::channel(0)]) else { return };
    while let Ok(Some(hop)) = clip.next_hop() {
        assert!(hop.lanes().flatten().all(|x| x.is_finite()));
    }
}

//! Bodies of the audio targets. They panic where an invariant of `undertone::audio` is broken.

use bytes::Bytes;
use undertone::audio::{AudioFormat, ClipHops, ClipReader, Encoding, Intake, Lane};
use undertone::units::{ChannelCount, SampleRate};

/// Input beyond this many bytes finds nothing new and only makes the fuzzer slow.
const MAX_BYTES: usize = 1 << 16;

/// A stream: five bytes choose encoding, channels, rate and lane, one the size of the chunks; the rest
/// is audio. Chunked and in one piece, it must give the same bits, all finite, or the same error.
pub fn audio_decode(data: &[u8]) {
    let Some((&[coding, channels, rate_low, rate_high, mask, chunk], audio)) =
        data.split_first_chunk()
    else {
        return;
    };
    let audio = &audio[..audio.len().min(MAX_BYTES)];
    // The rates that clients send, half of the time, any other the other half.
    let rate = if coding >> 2 < 32 {
        let usual = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
        usual[usize::from(coding >> 2) % usual.len()]
    } else {
        u32::from(u16::from_le_bytes([rate_low, rate_high])) % 40_001 + 8_000
    };
    let format = AudioFormat {
        encoding: match coding % 4 {
            0 => Encoding::Linear16,
            1 => Encoding::Float32,
            2 => Encoding::MuLaw,
            _ => Encoding::ALaw,
        },
        channels: ChannelCount::new(u32::from(channels % 8) + 1).expect("1 to 8"),
        rate: SampleRate::new(rate).expect("8 to 48 kHz"),
    };
    let members: Vec<usize> = (0..8).filter(|channel| mask >> channel & 1 == 1).collect();
    let lanes = [Lane::of(&members), Lane::channel(0)];
    let whole = run(format, &lanes, [audio]);
    let chunked = run(format, &lanes, audio.chunks(usize::from(chunk) + 1));
    assert!(whole == chunked, "chunking changes the result of {format:?}");
}

/// Hops as bits, the error's text if there is one, frames received, clipped samples.
type Outcome = Option<(Vec<u32>, Option<String>, u64, u64)>;

fn run<'a>(
    format: AudioFormat,
    lanes: &[Lane],
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut intake = Intake::new(format, lanes).ok()?;
    let mut hops = Vec::new();
    let mut error = None;
    for chunk in chunks {
        if let Err(failure) = intake.push(chunk) {
            error = Some(failure.to_string());
            break;
        }
        take(&mut intake, &mut hops);
    }
    take(&mut intake, &mut hops);
    intake.finish().expect("only a defect of the resampler makes the end fail");
    take(&mut intake, &mut hops);
    assert_eq!(hops.len() % 256, 0);
    Some((hops, error, intake.received().frames, intake.take_clipped(0)))
}

fn take(intake: &mut Intake, hops: &mut Vec<u32>) {
    while let Some(hop) = intake.next_hop() {
        for &sample in hop.lanes().flatten() {
            assert!(sample.is_finite());
            hops.push(sample.to_bits());
        }
    }
}

/// A file: one byte chooses the extension that is hinted at, the rest is the file. It must end, in an
/// error or in finite samples.
pub fn container_decode(data: &[u8]) {
    let Some((&hint, file)) = data.split_first() else { return };
    let hints =
        [None, Some("wav"), Some("flac"), Some("ogg"), Some("mp3"), Some("m4a"), Some("mkv")];
    let file = Bytes::copy_from_slice(&file[..file.len().min(MAX_BYTES)]);
    let Ok(reader) = ClipReader::from_bytes(file, hints[usize::from(hint) % hints.len()]) else {
        return;
    };
    let lanes = Lane::separate(reader.channels());
    let mut clip = ClipHops::new(reader, &lanes).expect("the lanes are those of the file");
    // A few bytes can declare hours of silence; a minute of it is enough.
    for _ in 0..60 * 63 {
        match clip.next_hop() {
            Ok(Some(hop)) => assert!(hop.lanes().flatten().all(|x| x.is_finite())),
            Ok(None) | Err(_) => break,
        }
    }
}

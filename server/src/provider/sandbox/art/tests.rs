#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use std::io::Cursor;

const SMALL: Canvas = Canvas { width: 96, height: 64 };

/// A prompt for every kind of scene, figure and weather.
const PROMPTS: &[&str] = &[
    "",
    "meadow with flowers, house and a lonely oak",
    "mountain in the snow",
    "misty forest with fireflies",
    "sailboat and gulls on a stormy sea, rain",
    "desert",
    "neon city",
    "saturn and a rocket",
    "abstract",
    "bauhaus",
    "cat and dog, cherry blossom",
    "balloon over a burning volcano",
    "northern aurora at night",
    "кот 東京 \u{0} \u{10FFFF} ﬁ",
];

fn pixels(png: &[u8]) -> image::RgbImage {
    image::load_from_memory_with_format(png, image::ImageFormat::Png)
        .unwrap()
        .to_rgb8()
}

/// Mean difference of two pictures' channels, of 255.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    let (a, b) = (pixels(a), pixels(b));
    let sum: u64 = a.iter().zip(b.iter()).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / a.len() as f64
}

/// The names of the boxes at the top of an MP4, and that their sizes add up to the file.
fn boxes(mp4: &[u8]) -> Vec<String> {
    let (mut at, mut names) = (0, Vec::new());
    while at < mp4.len() {
        let size = u32::from_be_bytes(mp4[at..at + 4].try_into().unwrap()) as usize;
        names.push(String::from_utf8(mp4[at + 4..at + 8].to_vec()).unwrap());
        at += size;
    }
    assert_eq!(at, mp4.len(), "the boxes fill the file exactly");
    names
}

#[test]
fn every_scene_is_a_picture_of_the_size_asked_for() {
    let sizes = [(96, 64), (64, 64), (64, 480), (480, 64), (97, 131)];
    for (number, prompt) in PROMPTS.iter().enumerate() {
        let (width, height) = sizes[number % sizes.len()];
        let png = draw_png(prompt, 1, 0, Canvas { width, height }).unwrap();
        let picture = pixels(&png);
        assert_eq!(picture.dimensions(), (width, height), "{prompt:?}");
        let (least, most) = picture.iter().fold((255, 0), |(l, m), c| (l.min(*c), m.max(*c)));
        assert!(most - least > 60, "{prompt:?} has something to see");
    }
}

#[test]
fn equal_inputs_give_equal_bytes() {
    for prompt in PROMPTS {
        let draw = || draw_png(prompt, 9, 2, SMALL).unwrap();
        assert_eq!(draw(), draw(), "{prompt:?}");
    }
    let clip = || draw_clip("sea", 9, SMALL, 1000).unwrap();
    assert_eq!(clip(), clip());
}

#[test]
fn prompt_seed_and_index_each_change_the_picture_visibly() {
    let draw = |prompt, seed, index| draw_png(prompt, seed, index, SMALL).unwrap();
    for prompt in ["a cat on a hill at dusk", "a picture of nothing", "sea"] {
        let first = draw(prompt, 1, 0);
        for other in [draw(prompt, 2, 0), draw(prompt, 1, 1), draw("another one", 1, 0)] {
            let difference = difference(&first, &other);
            assert!(difference > 3.0, "{prompt:?} differs by {difference}");
        }
    }
    // Seed and index are separate inputs, not a sum.
    assert_ne!(draw("sea", 1, 2), draw("sea", 2, 1));
}

#[test]
fn words_set_the_light() {
    let brightness = |prompt: &str| {
        let picture = pixels(&draw_png(prompt, 5, 0, SMALL).unwrap());
        picture.iter().map(|c| f64::from(*c)).sum::<f64>() / picture.len() as f64
    };
    assert!(brightness("hills at noon") > 1.8 * brightness("hills at night"));
}

#[test]
fn a_clip_is_an_mp4_of_the_duration_and_frames_asked_for() {
    for (duration_ms, frames) in [(1000, 12), (1500, 18), (2001, 25)] {
        let clip = draw_clip("boat on the sea", 3, SMALL, duration_ms).unwrap();
        assert_eq!(boxes(&clip), ["ftyp", "mdat", "moov"]);
        let size = clip.len() as u64;
        let mut reader = mp4::Mp4Reader::read_header(Cursor::new(clip), size).unwrap();
        assert_eq!(reader.duration().as_millis(), u128::from(duration_ms));
        let track = &reader.tracks()[&1];
        assert_eq!(track.track_type().unwrap(), mp4::TrackType::Video);
        assert_eq!(track.media_type().unwrap(), mp4::MediaType::H264);
        assert_eq!((track.width(), track.height()), (96, 64));
        assert_eq!(track.duration().as_millis(), u128::from(duration_ms));
        assert_eq!(track.sequence_parameter_set().unwrap()[3], 41, "the level");
        assert_eq!(reader.sample_count(1).unwrap(), frames);
        let samples: Vec<_> = (1..=frames)
            .map(|id| reader.read_sample(1, id).unwrap().unwrap())
            .collect();
        for sample in &samples {
            let length = u32::from_be_bytes(sample.bytes[..4].try_into().unwrap());
            assert_eq!(length as usize + 4, sample.bytes.len(), "one unit a sample");
            assert_eq!(sample.bytes[4] & 0x1F, 5, "the unit is a whole picture");
        }
        let moved = samples.windows(2).all(|pair| pair[0].bytes != pair[1].bytes);
        assert!(moved, "every frame differs from the one before");
    }
}

#[test]
fn clips_keep_their_shape_and_stay_small() {
    let size = |width, height| video::clip_size(Canvas { width, height });
    assert_eq!(size(64, 64), (64, 64), "never enlarged");
    assert_eq!(size(2048, 2048), (320, 320));
    assert_eq!(size(1920, 1080), (426, 240));
    assert_eq!(size(1080, 1920), (240, 426));
    assert_eq!(size(2048, 64), (480, 16));
    assert_eq!(size(65, 67), (64, 66), "even");
    let clip = draw_clip(
        "abstract",
        1,
        Canvas {
            width: 2048,
            height: 1152,
        },
        1000,
    )
    .unwrap();
    assert!(clip.len() * 10 < 20_000_000, "10 s would be {} bytes", clip.len() * 10);
}

#[test]
fn limits_are_refused_with_the_fault_named() {
    for (width, height, side, px) in [
        (63, 64, "width", 63),
        (64, 2049, "height", 2049),
        (0, 0, "width", 0),
        (u32::MAX, 64, "width", u32::MAX),
    ] {
        let canvas = Canvas { width, height };
        let named = |error: ArtError| match error {
            ArtError::Side { side, px } => (side, px),
            other => panic!("{other}"),
        };
        assert_eq!(named(draw_png("", 0, 0, canvas).unwrap_err()), (side, px));
        let error = draw_clip("", 0, canvas, 1000).unwrap_err();
        assert_eq!(named(error), (side, px));
    }
    for refused in [0, 999, 10_001, u32::MAX] {
        assert!(matches!(
            draw_clip("", 0, SMALL, refused),
            Err(ArtError::Duration { duration_ms }) if duration_ms == refused
        ));
    }
}

//! The media the simulated models deliver: small, valid, and different for every output, so that a test can tell
//! whose picture it holds.

use std::io::Cursor;

use anyhow::{Context as _, Result, anyhow};
use image::ImageEncoder as _;
use sha2::{Digest as _, Sha256};

/// What to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) format: Format,
    pub(super) width: u16,
    pub(super) height: u16,
    /// Length in seconds, videos only.
    pub(super) seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    Webp,
    Mp4,
}

impl Format {
    pub(super) fn of_name(name: &str) -> Self {
        match name {
            "png" => Self::Png,
            "webp" => Self::Webp,
            _ => Self::Jpeg,
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Mp4 => "mp4",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Mp4 => "video/mp4",
        }
    }
}

/// Width and height in pixels for `W:H` with the given longer edge, both even and at least 16. Anything that is not
/// a ratio counts as 16:9, Flux's default.
pub(super) fn size_of(aspect_ratio: &str, long_edge_px: u16) -> (u16, u16) {
    let ratio = aspect_ratio
        .split_once(':')
        .and_then(|(width, height)| Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?)))
        .filter(|(width, height)| (1..=1000).contains(width) && (1..=1000).contains(height));
    let (width, height) = ratio.unwrap_or((16, 9));
    let long = u32::from(long_edge_px);
    let even = |value: u32| u16::try_from((value / 2 * 2).max(16)).unwrap_or(u16::MAX - 1);
    if width >= height {
        (even(long), even(long * height / width))
    } else {
        (even(long * width / height), even(long))
    }
}

/// Draws one output. `name` decides the colours.
///
/// # Errors
/// If an encoder refuses, which would be a fault of this module.
pub(super) fn render(spec: &Spec, name: &str) -> Result<Vec<u8>> {
    let colours: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    if spec.format == Format::Mp4 {
        return render_mp4(spec, &colours);
    }
    let pixels = gradient(spec, &colours);
    let (width, height) = (spec.width, spec.height);
    let mut out = Vec::new();
    match spec.format {
        Format::Png => image::codecs::png::PngEncoder::new(&mut out)
            .write_image(&pixels, width.into(), height.into(), image::ExtendedColorType::Rgb8)
            .context("encode PNG")?,
        Format::Webp => image_webp::WebPEncoder::new(&mut out)
            .encode(&pixels, width.into(), height.into(), image_webp::ColorType::Rgb8)
            .context("encode WebP")?,
        _ => jpeg_encoder::Encoder::new(&mut out, 80)
            .encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)
            .context("encode JPEG")?,
    }
    Ok(out)
}

/// RGB rows blending two colours from left to right.
fn gradient(spec: &Spec, colours: &[u8; 32]) -> Vec<u8> {
    let width = u32::from(spec.width);
    let row: Vec<u8> = (0..width)
        .flat_map(|x| {
            (0..3).map(move |channel| {
                let (from, to) = (u32::from(colours[channel]), u32::from(colours[channel + 3]));
                u8::try_from((from * (width - x) + to * x) / width).unwrap_or(u8::MAX)
            })
        })
        .collect();
    row.repeat(usize::from(spec.height))
}

/// One H.264 picture shown for the whole length.
fn render_mp4(spec: &Spec, colours: &[u8; 32]) -> Result<Vec<u8>> {
    use less_avc::ycbcr_image::{DataPlane, Planes, YCbCrImage};

    let round16 = |value: u16| usize::from(value).div_ceil(16) * 16;
    let (stride, rows) = (round16(spec.width), round16(spec.height));
    let plane = |value: u8, scale: usize| vec![value; (stride / scale) * (rows / scale)];
    // 16..=235 is the range of luma, 16..=240 that of chroma.
    let (luma, blue, red) = (
        plane(16 + colours[0] % 200, 1),
        plane(16 + colours[1] % 200, 2),
        plane(16 + colours[2] % 200, 2),
    );
    let data_plane = |data, stride| DataPlane {
        data,
        stride,
        bit_depth: less_avc::BitDepth::Depth8,
    };
    let picture = YCbCrImage {
        planes: Planes::YCbCr((
            data_plane(&luma, stride),
            data_plane(&blue, stride / 2),
            data_plane(&red, stride / 2),
        )),
        width: spec.width.into(),
        height: spec.height.into(),
    };
    let (units, _) = less_avc::LessEncoder::new(&picture).map_err(|error| anyhow!("encode H.264: {error}"))?;
    let units: Vec<Vec<u8>> = units.into_iter().map(|unit| unit.to_nal_unit()).collect();
    let [sps, pps, frame] = units.as_slice() else {
        return Err(anyhow!("the H.264 encoder gave {} units", units.len()));
    };

    let brand = |name: &[u8; 4]| mp4::FourCC { value: *name };
    let mut writer = mp4::Mp4Writer::write_start(
        Cursor::new(Vec::new()),
        &mp4::Mp4Config {
            major_brand: brand(b"isom"),
            minor_version: 512,
            compatible_brands: vec![brand(b"isom"), brand(b"avc1"), brand(b"mp41")],
            timescale: 1000,
        },
    )?;
    writer.add_track(&mp4::TrackConfig::from(mp4::MediaConfig::AvcConfig(mp4::AvcConfig {
        width: spec.width,
        height: spec.height,
        seq_param_set: sps.clone(),
        pic_param_set: pps.clone(),
    })))?;
    let mut sample = u32::try_from(frame.len())?.to_be_bytes().to_vec();
    sample.extend_from_slice(frame);
    writer.write_sample(
        1,
        &mp4::Mp4Sample {
            start_time: 0,
            duration: spec.seconds * 1000,
            rendering_offset: 0,
            is_sync: true,
            bytes: sample.into(),
        },
    )?;
    writer.write_end()?;
    Ok(writer.into_writer().into_inner())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_ratio() {
        assert_eq!(size_of("16:9", 512), (512, 288));
        assert_eq!(size_of("9:16", 512), (288, 512));
        assert_eq!(size_of("1:1", 512), (512, 512));
        assert_eq!(size_of("nonsense", 320), (320, 180));
        assert_eq!(size_of("1000:1", 64), (64, 16));
    }

    #[test]
    fn every_format_is_what_it_says_and_differs_by_name() {
        for (format, at, magic) in [
            (Format::Jpeg, 0, &b"\xff\xd8\xff"[..]),
            (Format::Png, 0, b"\x89PNG"),
            (Format::Webp, 8, b"WEBP"),
            (Format::Mp4, 4, b"ftyp"),
        ] {
            let spec = Spec {
                format,
                width: 64,
                height: 36,
                seconds: 4,
            };
            let first = render(&spec, "a/0").unwrap();
            assert_eq!(&first[at..at + magic.len()], magic, "{format:?}");
            assert_ne!(first, render(&spec, "a/1").unwrap(), "{format:?}");
            assert_eq!(first, render(&spec, "a/0").unwrap(), "{format:?}");
        }
    }

    #[test]
    fn a_video_has_its_length_and_size() {
        let spec = Spec {
            format: Format::Mp4,
            width: 64,
            height: 36,
            seconds: 6,
        };
        let bytes = render(&spec, "v").unwrap();
        let length = bytes.len() as u64;
        let reader = mp4::Mp4Reader::read_header(Cursor::new(bytes), length).unwrap();
        assert_eq!(reader.duration().as_secs(), 6);
        let track = reader.tracks().get(&1).unwrap();
        assert_eq!((track.width(), track.height()), (64, 36));
    }
}

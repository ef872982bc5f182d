//! The clip: frames as H.264 in an MP4.
//!
//! The encoder stores every frame whole and without loss (intra, PCM), so a byte of picture is a byte of file: the size
//! of a clip is bounded by bounding its pixels, see [`clip_size`]. 10 s stay under 20 MB.

use less_avc::ycbcr_image::{DataPlane, Planes, YCbCrImage};
use less_avc::{BitDepth, LessEncoder};
use mp4::{AvcConfig, FourCC, MediaConfig, Mp4Config, Mp4Sample, Mp4Writer, TrackConfig, TrackType};
use std::io::Cursor;

use super::frame::Frame;
use super::scene::Scene;
use super::{ArtError, Canvas, caption};

/// Frames a second.
pub(super) const FRAMES_PER_SECOND: u32 = 12;
/// Ticks a second of the track's clock: milliseconds, which the durations asked for are in.
const TIMESCALE: u32 = 1000;
/// The longer side of a clip, in pixels.
const MAX_SIDE: u32 = 480;
/// Pixels of a clip's frame; 1.5 bytes each.
const MAX_PIXELS: u32 = 320 * 320;
/// A macroblock's side; the encoder reads whole ones.
const BLOCK: usize = 16;
/// Grain that stands still while things move looks like a dirty window: only as much as hides bands in skies.
const DITHER: f32 = 0.6;

/// The size of a clip for a canvas: the same shape, never enlarged, both sides even, at most 480 a side and
/// 102 400 pixels.
pub(super) fn clip_size(canvas: Canvas) -> (u32, u32) {
    let (width, height) = (f64::from(canvas.width), f64::from(canvas.height));
    let by_side = f64::from(MAX_SIDE) / width.max(height);
    let by_area = (f64::from(MAX_PIXELS) / (width * height)).sqrt();
    let scale = by_side.min(by_area).min(1.0);
    let even = |side: f64| (((side * scale) as u32) & !1).max(BLOCK as u32);
    (even(width), even(height))
}

/// How many frames a duration has: at least one, the last one perhaps shorter than the others.
pub(super) fn frame_count(duration_ms: u32) -> u32 {
    (duration_ms * FRAMES_PER_SECOND).div_ceil(TIMESCALE).max(1)
}

/// When a frame starts, in milliseconds. Computed from its number, so that rounding never adds up.
fn start_ms(number: u32) -> u32 {
    number * TIMESCALE / FRAMES_PER_SECOND
}

/// Draws and encodes the clip.
pub(super) fn encode(scene: &Scene, prompt: &str, canvas: Canvas, duration_ms: u32) -> Result<Vec<u8>, ArtError> {
    let (width, height) = clip_size(canvas);
    let mut planes = PlaneBuffers::new(width, height);
    let draw = |number: u32, planes: &mut PlaneBuffers| {
        let mut frame = Frame::new(width, height);
        scene.draw(&mut frame, start_ms(number) as f32 / TIMESCALE as f32);
        let (light, dark) = scene.caption_colours();
        caption::write(&mut frame, prompt, light, dark);
        planes.fill(&frame.to_rgb8(scene.grain_seed, DITHER));
    };
    draw(0, &mut planes);
    let (first, mut encoder) = LessEncoder::new(&planes.image()).map_err(ArtError::Encode)?;
    let mut sps = first.sps.to_nal_unit();
    declare_level(&mut sps);
    let mut writer = Mp4Writer::write_start(Cursor::new(Vec::new()), &container()?)?;
    writer.add_track(&TrackConfig {
        track_type: TrackType::Video,
        timescale: TIMESCALE,
        language: "und".to_owned(),
        media_conf: MediaConfig::AvcConfig(AvcConfig {
            width: width as u16,
            height: height as u16,
            seq_param_set: sps,
            pic_param_set: first.pps.to_nal_unit(),
        }),
    })?;
    let count = frame_count(duration_ms);
    let mut unit = first.frame.to_nal_unit();
    for number in 0..count {
        if number > 0 {
            draw(number, &mut planes);
            unit = encoder.encode(&planes.image()).map_err(ArtError::Encode)?.to_nal_unit();
        }
        let start = start_ms(number);
        let end = start_ms(number + 1).min(duration_ms);
        // In MP4 a unit is preceded by its length; the start codes are for raw streams.
        let mut bytes = (unit.len() as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&unit);
        let sample = Mp4Sample {
            start_time: u64::from(start),
            duration: end.saturating_sub(start).max(1),
            rendering_offset: 0,
            is_sync: true,
            bytes: bytes.into(),
        };
        writer.write_sample(1, &sample)?;
    }
    writer.write_end()?;
    Ok(writer.into_writer().into_inner())
}

fn container() -> Result<Mp4Config, ArtError> {
    let brand = |name: &str| name.parse::<FourCC>();
    Ok(Mp4Config {
        major_brand: brand("isom")?,
        minor_version: 512,
        compatible_brands: vec![brand("isom")?, brand("iso2")?, brand("avc1")?, brand("mp41")?],
        timescale: TIMESCALE,
    })
}

/// Puts the true level into the sequence parameter set.
///
/// The encoder writes 1.0 whatever the size, which promises a decoder far fewer bits than whole frames need: at our
/// largest they are 15 Mbit/s, within 4.1. Decoders in hardware refuse streams by this byte. It also says "constrained
/// baseline" (flags 0 and 1), which intra PCM is and every player knows.
fn declare_level(sps: &mut [u8]) {
    if let Some([constraints, level]) = sps.get_mut(2..4) {
        *constraints = 0b1100_0000;
        *level = 41;
    }
}

/// One frame as 4:2:0 planes, padded to whole macroblocks.
struct PlaneBuffers {
    width: u32,
    height: u32,
    /// Bytes a row of luma; half of it a row of chroma.
    stride: usize,
    luma: Vec<u8>,
    blue: Vec<u8>,
    red: Vec<u8>,
}

impl PlaneBuffers {
    fn new(width: u32, height: u32) -> Self {
        let stride = (width as usize).next_multiple_of(BLOCK);
        let rows = (height as usize).next_multiple_of(BLOCK);
        Self {
            width,
            height,
            stride,
            luma: vec![0; stride * rows],
            blue: vec![128; stride * rows / 4],
            red: vec![128; stride * rows / 4],
        }
    }

    /// Converts RGB to full-range BT.601, as the stream declares; chroma is the mean of four pixels.
    fn fill(&mut self, rgb8: &[u8]) {
        let width = self.width as usize;
        let pixel = |x: usize, y: usize| -> [f32; 3] {
            let at = (y * width + x) * 3;
            rgb8.get(at..at + 3)
                .map_or([0.0; 3], |p| std::array::from_fn(|c| f32::from(p[c])))
        };
        let byte = |value: f32| (value + 0.5).clamp(0.0, 255.0) as u8;
        for y in (0..self.height as usize).step_by(2) {
            for x in (0..width).step_by(2) {
                let mut mean = [0.0_f32; 3];
                for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let [r, g, b] = pixel(x + dx, y + dy);
                    let luma = byte(0.299 * r + 0.587 * g + 0.114 * b);
                    if let Some(out) = self.luma.get_mut((y + dy) * self.stride + x + dx) {
                        *out = luma;
                    }
                    mean = [mean[0] + r / 4.0, mean[1] + g / 4.0, mean[2] + b / 4.0];
                }
                let [r, g, b] = mean;
                let at = y / 2 * (self.stride / 2) + x / 2;
                if let Some(out) = self.blue.get_mut(at) {
                    *out = byte(128.0 - 0.168_736 * r - 0.331_264 * g + 0.5 * b);
                }
                if let Some(out) = self.red.get_mut(at) {
                    *out = byte(128.0 + 0.5 * r - 0.418_688 * g - 0.081_312 * b);
                }
            }
        }
    }

    fn image(&self) -> YCbCrImage<'_> {
        let plane = |data, stride| DataPlane {
            data,
            stride,
            bit_depth: BitDepth::Depth8,
        };
        YCbCrImage {
            planes: Planes::YCbCr((
                plane(self.luma.as_slice(), self.stride),
                plane(self.blue.as_slice(), self.stride / 2),
                plane(self.red.as_slice(), self.stride / 2),
            )),
            width: self.width,
            height: self.height,
        }
    }
}

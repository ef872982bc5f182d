//! The artist of the sandbox: turns a prompt into a picture or a short clip, by drawing.
//!
//! No model is involved. Words the artist knows choose the scene, the light and what stands in it; everything else
//! comes from a hash of prompt, seed and index. So the sandbox gives results worth looking at, at once and for free.
//!
//! Invariants:
//! - A pure function: no clock, no file, no network, no global state. Equal inputs give equal bytes.
//! - Work and memory are bounded by the checked canvas and duration.
//! - It computes for tens of milliseconds (pictures) to seconds (clips): call it where blocking is allowed.

mod caption;
mod field;
mod figures;
mod frame;
mod land;
mod noise;
mod palette;
mod scene;
mod shapes;
mod sky;
mod video;
mod water;
mod weather;
mod words;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use frame::Frame;
use scene::Scene;

/// Allowed length of a side, in pixels.
const SIDE_PX: std::ops::RangeInclusive<u32> = 64..=2048;
/// Allowed length of a clip, in milliseconds.
const DURATION_MS: std::ops::RangeInclusive<u32> = 1_000..=10_000;
/// Film grain of a picture, in 1/255.
const GRAIN: f32 = 2.5;

/// The size of the picture, in pixels. A clip keeps its shape but is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    /// `64..=2048`, checked when drawing.
    pub width: u32,
    /// `64..=2048`, checked when drawing.
    pub height: u32,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum ArtError {
    /// A side is out of range.
    #[error("{side} is {px} px; a side is 64 to 2048 px")]
    Side {
        /// `width` or `height`.
        side: &'static str,
        /// What was asked for.
        px: u32,
    },
    /// The clip's duration is out of range.
    #[error("duration is {duration_ms} ms; a clip is 1000 to 10000 ms")]
    Duration {
        /// What was asked for.
        duration_ms: u32,
    },
    /// The PNG encoder failed.
    #[error("the picture could not be encoded")]
    Png(#[from] image::ImageError),
    /// The video encoder refused a frame.
    #[error("a frame could not be encoded")]
    Encode(#[source] less_avc::Error),
    /// The clip could not be put into its container.
    #[error("the clip could not be put into its container")]
    Container(#[from] mp4::Error),
}

/// Draws one picture as a PNG (8-bit RGB) of exactly the canvas' size.
///
/// `index` tells apart the pictures of one request. Fails if the canvas is out of range.
pub fn draw_png(prompt: &str, seed: u64, index: u32, canvas: Canvas) -> Result<Vec<u8>, ArtError> {
    let Canvas { width, height } = canvas.checked()?;
    let scene = Scene::compose(prompt, seed, index, canvas.aspect());
    let mut frame = Frame::new(width, height);
    scene.draw(&mut frame, 0.0);
    let (light, dark) = scene.caption_colours();
    caption::write(&mut frame, prompt, light, dark);
    let mut png = Vec::new();
    // The grain leaves little to compress: more effort costs time and saves nothing.
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Sub).write_image(
        &frame.to_rgb8(scene.grain_seed, GRAIN),
        width,
        height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(png)
}

/// Draws the picture of `index` 0 in motion, as an MP4 (H.264, 12 frames a second, no sound).
///
/// The clip has the canvas' shape, is at most 480 px a side and under 20 MB. `duration_ms` is `1000..=10000`.
/// Fails if canvas or duration are out of range.
pub fn draw_clip(prompt: &str, seed: u64, canvas: Canvas, duration_ms: u32) -> Result<Vec<u8>, ArtError> {
    let canvas = canvas.checked()?;
    if !DURATION_MS.contains(&duration_ms) {
        return Err(ArtError::Duration { duration_ms });
    }
    let scene = Scene::compose(prompt, seed, 0, canvas.aspect());
    video::encode(&scene, prompt, canvas, duration_ms)
}

impl Canvas {
    fn checked(self) -> Result<Self, ArtError> {
        for (side, px) in [("width", self.width), ("height", self.height)] {
            if !SIDE_PX.contains(&px) {
                return Err(ArtError::Side { side, px });
            }
        }
        Ok(self)
    }

    fn aspect(self) -> f32 {
        self.width as f32 / self.height as f32
    }
}

#[cfg(test)]
mod tests;

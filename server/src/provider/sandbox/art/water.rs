//! The sea: a plane seen in perspective, mirroring the sky above it.

use super::frame::{Frame, Rgb, lerp, mix};
use super::noise::{fbm2, noise2, smoothstep};
use super::palette::Palette;
use super::sky::gradient;

/// A body of water from the horizon to the bottom of the canvas.
#[derive(Debug, Clone)]
pub(super) struct Water {
    pub(super) seed: u32,
    /// As a fraction of the height.
    pub(super) horizon: f32,
    /// How much darker than the sky.
    pub(super) deep: Rgb,
}

impl Water {
    pub(super) fn paint(&self, frame: &mut Frame, palette: &Palette, sun_x: f32, seconds: f32) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let start = (self.horizon * height) as usize;
        for y in start..frame.height {
            let v = (y - start) as f32 / (height - start as f32).max(1.0);
            let mirror = gradient(&palette.sky, 1.0 - v * 0.9);
            let base = mix(mirror, self.deep, 0.22 + 0.55 * v.powf(0.8));
            let distance = 1.0 / (v + 0.045);
            let swell = smoothstep(0.0, 0.16, v) * 0.75 + 0.25;
            for (x, pixel) in frame.row(y).iter_mut().enumerate() {
                let u = (x as f32 - width / 2.0) / unit;
                let (wx, wz) = (u * distance, distance * 2.6);
                let wave = fbm2(self.seed, wx * 1.5 + seconds * 0.12 + 70.0, wz * 2.3 + seconds * 0.5, 2);
                let crest = smoothstep(0.52, 0.78, wave) * swell;
                let trough = smoothstep(0.48, 0.22, wave) * swell;
                let mut colour = lerp(base, palette.sky[3], crest * 0.3);
                colour = lerp(colour, self.deep, trough * 0.34);
                let off = (u - sun_x) / (0.045 + 0.26 * v);
                let path = 1.0 / (1.0 + off * off * off * off * 1.4);
                if path > 0.03 {
                    let spark = noise2(self.seed ^ 5, wx * 5.0 + seconds * 0.4 + 50.0, wz * 7.0 + seconds * 1.3);
                    let lit = smoothstep(0.62 - 0.2 * path, 0.84, spark);
                    colour = lerp(colour, palette.sun, path * (0.12 + 0.72 * lit));
                }
                *pixel = colour;
            }
        }
    }
}

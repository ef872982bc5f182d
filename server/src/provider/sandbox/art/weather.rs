//! Things in the air: snow, rain, embers, petals, fireflies and mist.

use super::frame::{Frame, Rgb, lerp};
use super::noise::{Rng, fbm2, smoothstep};
use super::palette::Palette;
use super::words::Weather;

/// One kind of weather and its particles.
#[derive(Debug, Clone)]
pub(super) struct Air {
    weather: Weather,
    seed: u32,
    motes: Vec<Mote>,
}

/// Position as fractions of the canvas; `depth` 0 far, 1 near.
#[derive(Debug, Clone)]
struct Mote {
    x: f32,
    y: f32,
    depth: f32,
    phase: f32,
}

impl Air {
    pub(super) fn compose(weather: Weather, rng: &mut Rng) -> Self {
        let count = match weather {
            Weather::Snow => 420,
            Weather::Rain => 340,
            Weather::Embers => 130,
            Weather::Petals => 70,
            Weather::Fireflies => 46,
            Weather::Mist | Weather::Aurora | Weather::Clouds => 0,
        };
        let motes = (0..count)
            .map(|_| Mote {
                x: rng.unit(),
                y: rng.unit(),
                depth: rng.unit().powi(2),
                phase: rng.range(0.0, std::f32::consts::TAU),
            })
            .collect();
        Self {
            weather,
            seed: rng.seed(),
            motes,
        }
    }

    pub(super) fn paint(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        match self.weather {
            Weather::Mist => self.paint_mist(frame, palette, seconds),
            Weather::Aurora | Weather::Clouds => {}
            _ => self.motes.iter().for_each(|mote| {
                self.paint_mote(frame, palette, mote, seconds);
            }),
        }
    }

    fn paint_mote(&self, frame: &mut Frame, palette: &Palette, mote: &Mote, seconds: f32) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let near = 0.35 + 0.65 * mote.depth;
        let swing = (mote.phase + seconds * 1.4).sin();
        let wrap = |value: f32| value.rem_euclid(1.0);
        // A whole canvas and a margin is the cycle, so that nothing pops up in sight.
        let place = |dx: f32, dy: f32| {
            (
                (wrap(mote.x + dx * near) * 1.1 - 0.05) * width,
                (wrap(mote.y + dy * near) * 1.1 - 0.05) * height,
            )
        };
        match self.weather {
            Weather::Snow => {
                let at = place(0.02 * swing - 0.02 * seconds, 0.16 * seconds);
                let radius = (0.0035 + 0.0085 * mote.depth) * unit;
                frame.glow(at, radius.max(0.8), [1.0; 3], 0.45 + 0.5 * near);
            }
            Weather::Rain => {
                let at = place(-0.12 * seconds, 1.3 * seconds);
                let length = (0.02 + 0.05 * near) * unit;
                let colour = lerp(palette.sky[3], [1.0; 3], 0.4);
                let half = (0.0012 * unit * near).max(0.35);
                frame.fill(at, (length * 0.2, length), colour, 0.2 + 0.3 * near, |x, y| {
                    ((x + y * 0.12).abs() - half).max(y.abs() - length)
                });
            }
            Weather::Embers => {
                let at = place(0.03 * swing, -0.14 * seconds);
                let radius = (0.002 + 0.006 * mote.depth) * unit;
                let colour: Rgb = lerp([1.0, 0.45, 0.1], [1.0, 0.85, 0.45], mote.depth);
                frame.glow(at, radius * 3.5, colour, 0.45);
                frame.disc(at, radius.max(0.6), colour, 0.95);
            }
            Weather::Petals => {
                let at = place(0.03 * swing - 0.06 * seconds, 0.09 * seconds);
                let size = (0.005 + 0.011 * mote.depth) * unit;
                let (sin, cos) = (mote.phase + seconds * 1.7).sin_cos();
                let colour = lerp(palette.accent, palette.light, 0.3 * near);
                frame.fill(at, (size, size), colour, 0.9, |x, y| {
                    let (along, across) = (x * cos + y * sin, y * cos - x * sin);
                    ((along / size).hypot(across / (size * 0.5)) - 1.0) * size * 0.5
                });
            }
            Weather::Fireflies => {
                let blink = 0.5 + 0.5 * (mote.phase + seconds * 2.0).sin();
                let at = place(0.02 * swing, 0.012 * (seconds + mote.phase).cos());
                let at = (at.0, height * 0.45 + at.1 * 0.55);
                let radius = (0.003 + 0.004 * mote.depth) * unit;
                let strength = 0.35 + 0.65 * blink;
                frame.glow(at, radius * 6.0, [0.95, 0.9, 0.4], 0.5 * strength);
                frame.disc(at, radius, [1.0, 0.98, 0.7], strength);
            }
            Weather::Mist | Weather::Aurora | Weather::Clouds => {}
        }
    }

    fn paint_mist(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        let (height, unit) = (frame.height as f32, frame.unit());
        let colour = lerp(palette.sky[3], palette.light, 0.3);
        for y in 0..frame.height {
            let v = y as f32 / height;
            let band = smoothstep(0.3, 0.68, v) * (1.0 - 0.55 * smoothstep(0.75, 1.0, v));
            if band <= 0.0 {
                continue;
            }
            for (x, pixel) in frame.row(y).iter_mut().enumerate() {
                let u = x as f32 / unit + seconds * 0.03;
                let thick = fbm2(self.seed, u * 1.1, v * 5.0, 3);
                *pixel = lerp(*pixel, colour, band * smoothstep(0.3, 0.75, thick) * 0.75);
            }
        }
    }
}

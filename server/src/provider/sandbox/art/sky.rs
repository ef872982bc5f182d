//! Everything above the horizon: gradient, sun or moon, stars, clouds, aurora.

use super::field::Field;
use super::frame::{Frame, Rgb, lerp, mix};
use super::noise::{Rng, fbm2, noise1, noise2, smoothstep};
use super::palette::Palette;

/// One star. Positions are fractions of the canvas.
#[derive(Debug, Clone)]
struct Star {
    x: f32,
    y: f32,
    size: f32,
    phase: f32,
}

/// The composed sky.
#[derive(Debug, Clone)]
pub(super) struct Sky {
    seed: u32,
    /// Middle of the sun, in units from the canvas' vertical axis.
    pub(super) sun_x: f32,
    /// Middle of the sun, as a fraction of the height.
    sun_y: f32,
    sun_radius: f32,
    moon: bool,
    /// `0.0` clear, `1.0` overcast.
    cloudiness: f32,
    stars: Vec<Star>,
    aurora: bool,
    /// Where the gradient ends, as a fraction of the height.
    horizon: f32,
}

/// What composing a sky needs to know.
pub(super) struct SkyPlan {
    pub(super) horizon: f32,
    pub(super) dark: bool,
    pub(super) cloudy: bool,
    pub(super) aurora: bool,
    pub(super) star_count: usize,
}

impl Sky {
    pub(super) fn compose(plan: &SkyPlan, rng: &mut Rng) -> Self {
        let stars = (0..plan.star_count)
            .map(|_| Star {
                x: rng.unit(),
                y: rng.unit().powf(1.2),
                size: 0.6 + rng.unit().powi(9) * 2.2,
                phase: rng.range(0.0, std::f32::consts::TAU),
            })
            .collect();
        let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
        Self {
            seed: rng.seed(),
            sun_x: side * rng.range(0.06, 0.42),
            sun_y: plan.horizon * rng.range(0.34, 0.86),
            sun_radius: rng.range(0.05, 0.12),
            moon: plan.dark,
            cloudiness: if plan.cloudy {
                rng.range(0.65, 0.85)
            } else {
                rng.range(0.15, 0.6)
            },
            stars,
            aurora: plan.aurora,
            horizon: plan.horizon,
        }
    }

    /// Paints the whole canvas; what lies below the horizon goes on in the horizon's colour.
    pub(super) fn paint(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let sun = (width / 2.0 + self.sun_x * unit, (self.sun_y - 0.008 * seconds) * height);
        let reach = 0.42 * unit;
        let glow = if self.moon { 0.22 } else { 0.6 };
        for y in 0..frame.height {
            let v = (y as f32 + 0.5) / (height * self.horizon);
            let base = gradient(&palette.sky, v);
            let dy = (y as f32 - sun.1) / reach;
            for (x, pixel) in frame.row(y).iter_mut().enumerate() {
                let dx = (x as f32 - sun.0) / reach;
                // A rational fall-off: close to a Gaussian near the disc, a long tail into the sky, no exp() a pixel.
                let fall = 1.0 / (1.0 + 2.2 * (dx * dx + dy * dy));
                *pixel = lerp(base, palette.light, glow * fall * fall);
            }
        }
        self.paint_stars(frame, palette, seconds);
        if self.aurora {
            self.paint_aurora(frame, palette, seconds);
        }
        self.paint_sun(frame, palette, sun);
        self.paint_clouds(frame, palette, sun, seconds);
    }

    /// Paints a gradient and the stars only: the ground of pictures without a horizon.
    pub(super) fn paint_plain(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        let height = frame.height as f32;
        for y in 0..frame.height {
            let base = gradient(&palette.sky, (y as f32 + 0.5) / height);
            frame.row(y).fill(base);
        }
        self.paint_stars(frame, palette, seconds);
    }

    fn paint_stars(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let scale = (unit / 700.0).max(0.45);
        for star in &self.stars {
            let twinkle = 0.75 + 0.25 * (star.phase + seconds * 2.4).sin();
            let low = 1.0 - smoothstep(0.7, 1.05, star.y);
            let at = (star.x * width, star.y * self.horizon * height);
            let colour = lerp([1.0; 3], palette.light, 0.4);
            let strength = twinkle * low * star.size.min(1.0);
            frame.disc(at, star.size * scale, colour, strength);
            if star.size > 1.6 {
                frame.glow(at, star.size * scale * 5.0, colour, 0.35 * strength);
            }
        }
    }

    fn paint_sun(&self, frame: &mut Frame, palette: &Palette, centre: (f32, f32)) {
        let radius = self.sun_radius * frame.unit();
        frame.glow(centre, radius * 2.6, palette.light, if self.moon { 0.2 } else { 0.4 });
        frame.disc(centre, radius, palette.sun, 1.0);
        if self.moon {
            // Soft seas on the moon, kept inside its disc.
            let seed = self.seed;
            let shade = lerp(palette.sun, palette.sky[1], 0.35);
            for (dx, dy, size) in [(-0.3, -0.2, 0.42), (0.28, 0.22, 0.34), (-0.08, 0.5, 0.2)] {
                let wobble = 0.12 * (noise1(seed, dx * 9.0) - 0.5);
                let at = (centre.0 + (dx + wobble) * radius, centre.1 + (dy - wobble) * radius);
                frame.glow(at, size * radius, shade, 0.55);
            }
        }
    }

    /// Clouds are soft, so they are computed on a coarse grid and stretched over the pixels.
    fn paint_clouds(&self, frame: &mut Frame, palette: &Palette, sun: (f32, f32), seconds: f32) {
        if self.cloudiness < 0.2 {
            return;
        }
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let threshold = 0.72 - 0.34 * self.cloudiness;
        let shadow = mix(palette.sky[1], palette.sky[2], 0.5);
        let end = self.horizon * height;
        let density = Field::new(frame, end, |x, y| {
            let (u, v) = ((x - width / 2.0) / unit, y / unit);
            // Flatter towards the horizon, as a ceiling of clouds seen in perspective.
            let squeeze = 3.2 + 5.0 * (y / end);
            let warp = 0.35 * noise2(self.seed ^ 7, u * 2.0, v * 4.0);
            fbm2(
                self.seed,
                (u + warp) * 1.9 + seconds * 0.035 + 40.0,
                v * squeeze + 9.0 + warp,
                5,
            )
        });
        let step = 0.012 * unit;
        let radius = self.sun_radius * unit;
        for y in 0..(end as usize).min(frame.height) {
            let fade = smoothstep(0.0, 0.12, y as f32 / end) * (1.0 - smoothstep(0.82, 1.0, y as f32 / end));
            for x in 0..frame.width {
                let here = density.at(x as f32, y as f32);
                let cover = smoothstep(threshold, threshold + 0.2, here);
                if cover <= 0.0 {
                    continue;
                }
                let (dx, dy) = (sun.0 - x as f32, sun.1 - y as f32);
                let far = dx.hypot(dy).max(1.0);
                let towards = density.at(x as f32 + dx / far * step * 3.0, y as f32 + dy / far * step);
                let lit = (0.55 + (here - towards) * 5.0).clamp(0.0, 1.0);
                let near = 1.0 / (1.0 + far / unit * 1.6);
                let colour = lerp(shadow, palette.light, lit * (0.45 + 0.55 * near));
                // The sun shines through, or its edge would be a line drawn on the cloud.
                let through = 1.0 - 0.6 * (1.0 - smoothstep(0.9, 1.25, far / radius));
                frame.blend(x as i32, y as i32, colour, cover * fade * 0.82 * through);
            }
        }
    }

    fn paint_aurora(&self, frame: &mut Frame, palette: &Palette, seconds: f32) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let end = self.horizon * height;
        let curtains: [(Rgb, f32); 3] = [
            ([0.25, 0.95, 0.65], 0.62),
            ([0.2, 0.75, 0.85], 0.48),
            ([0.65, 0.35, 0.9], 0.36),
        ];
        for (number, (colour, base)) in curtains.into_iter().enumerate() {
            let seed = self.seed.wrapping_add(number as u32 * 97);
            let field = Field::new(frame, end, |x, y| {
                let u = (x - width / 2.0) / unit;
                let foot = base + 0.34 * (fbm2(seed, u * 1.3, seconds * 0.12, 3) - 0.5);
                let above = foot - y / end;
                let rays = 0.35 + 0.65 * fbm2(seed ^ 3, u * 9.0, seconds * 0.3, 3);
                let rise = smoothstep(-0.03, 0.02, above);
                rise * rays * (-above.max(0.0) * 5.0).exp()
            });
            let colour = lerp(colour, palette.light, 0.1);
            for y in 0..(end as usize).min(frame.height) {
                for x in 0..frame.width {
                    let alpha = field.at(x as f32, y as f32);
                    frame.blend(x as i32, y as i32, colour, alpha * 0.75);
                }
            }
        }
    }
}

/// The colour at `v` (0 zenith, 1 horizon) of a four-stop sky.
pub(super) fn gradient(sky: &[Rgb; 4], v: f32) -> Rgb {
    let v = v.clamp(0.0, 1.0) * 3.0;
    if v < 1.0 {
        mix(sky[0], sky[1], v)
    } else if v < 2.0 {
        mix(sky[1], sky[2], v - 1.0)
    } else {
        mix(sky[2], sky[3], v - 2.0)
    }
}

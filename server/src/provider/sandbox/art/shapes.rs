//! Pictures without a horizon: discs and arcs, and the planets of deep space.

use super::field::Field;
use super::frame::{Frame, Rgb, lerp, mix};
use super::noise::{Rng, fbm2, noise1, smoothstep};
use super::palette::Palette;

/// A disc of a poster. Positions are fractions of the canvas, sizes are in units.
#[derive(Debug, Clone)]
pub(super) struct Orb {
    x: f32,
    y: f32,
    radius: f32,
    /// Width of the line if this is a ring.
    ring: Option<f32>,
    from: Rgb,
    to: Rgb,
    angle: f32,
    alpha: f32,
    phase: f32,
}

impl Orb {
    /// Some overlapping discs and rings, large ones first.
    pub(super) fn compose(palette: &Palette, rng: &mut Rng) -> Vec<Self> {
        let colours = [
            palette.sun,
            palette.accent,
            palette.sky[0],
            palette.sky[2],
            palette.near,
            palette.far,
            palette.light,
        ];
        let count = 7 + rng.below(5);
        let mut orbs: Vec<Self> = (0..count)
            .map(|number| {
                let large = 1.0 - number as f32 / count as f32;
                let from = rng.pick(&colours, palette.sun);
                let towards = rng.pick(&colours, palette.accent);
                Self {
                    x: 0.5 + rng.range(-0.36, 0.36),
                    y: 0.5 + rng.range(-0.36, 0.36),
                    radius: 0.05 + 0.3 * large * large + rng.range(0.0, 0.05),
                    ring: rng.chance(0.28).then(|| rng.range(0.006, 0.03)),
                    from,
                    to: mix(from, towards, 0.6),
                    angle: rng.range(0.0, std::f32::consts::TAU),
                    alpha: rng.range(0.7, 0.96),
                    phase: rng.range(0.0, std::f32::consts::TAU),
                }
            })
            .collect();
        if let Some(first) = orbs.first_mut() {
            first.ring = None;
            first.from = palette.sun;
            first.to = palette.accent;
            first.alpha = 0.96;
        }
        orbs
    }

    pub(super) fn paint(&self, frame: &mut Frame, seconds: f32) {
        let unit = frame.unit();
        let sway = 0.035 * (1.0 - self.radius);
        let centre = (
            self.x * frame.width as f32 + sway * unit * (self.phase + seconds * 0.5).cos(),
            self.y * frame.height as f32 + sway * unit * (self.phase + seconds * 0.5).sin(),
        );
        let radius = self.radius * unit;
        let (sin, cos) = self.angle.sin_cos();
        let (shadow_x, shadow_y) = (centre.0 + 0.012 * unit, centre.1 + 0.02 * unit);
        if self.ring.is_none() {
            frame.glow((shadow_x, shadow_y), radius * 1.18, [0.03, 0.02, 0.08], 0.4);
        }
        let line = self.ring.map(|width| width * unit);
        let (x_from, x_to) = (
            (centre.0 - radius - 20.0).max(0.0) as usize,
            (centre.0 + radius + 20.0).clamp(0.0, frame.width as f32) as usize,
        );
        let (y_from, y_to) = (
            (centre.1 - radius - 20.0).max(0.0) as usize,
            (centre.1 + radius + 20.0).clamp(0.0, frame.height as f32) as usize,
        );
        for y in y_from..y_to {
            for x in x_from..x_to {
                let (dx, dy) = (x as f32 + 0.5 - centre.0, y as f32 + 0.5 - centre.1);
                let far = dx.hypot(dy) - radius;
                let edge = line.map_or(far, |line| far.abs() - line / 2.0);
                let cover = (0.5 - edge).clamp(0.0, 1.0);
                if cover > 0.0 {
                    let along = 0.5 + 0.5 * (dx * cos + dy * sin) / radius;
                    let colour = lerp(self.from, self.to, along.clamp(0.0, 1.0));
                    frame.blend(x as i32, y as i32, colour, cover * self.alpha);
                }
            }
        }
    }
}

/// Deep space: a nebula and planets.
#[derive(Debug, Clone)]
pub(super) struct Planets {
    seed: u32,
    nebula: [Rgb; 2],
    bodies: Vec<Planet>,
}

#[derive(Debug, Clone)]
struct Planet {
    seed: u32,
    x: f32,
    y: f32,
    radius: f32,
    bands: [Rgb; 2],
    light: Rgb,
    /// Tilt of the rings, if any.
    ring: Option<f32>,
    stripes: f32,
}

impl Planets {
    pub(super) fn compose(palette: &Palette, rng: &mut Rng) -> Self {
        let side = if rng.chance(0.5) { 1.0 } else { -1.0 };
        let count = 1 + rng.below(3);
        let colours = [palette.accent, palette.sun, palette.sky[3], palette.far, palette.light];
        let bodies = (0..=count)
            .map(|number| {
                let first = number == 0;
                let away = if first { side } else { -side };
                let base = rng.pick(&colours, palette.accent);
                Planet {
                    seed: rng.seed(),
                    x: 0.5 + away * rng.range(0.08, if first { 0.22 } else { 0.4 }),
                    y: rng.range(0.24, 0.74),
                    radius: if first {
                        rng.range(0.2, 0.3)
                    } else {
                        rng.range(0.02, 0.075)
                    },
                    bands: [base, mix(base, rng.pick(&colours, palette.sun), 0.6)],
                    light: palette.light,
                    ring: rng.chance(if first { 0.6 } else { 0.2 }).then(|| rng.range(-0.5, 0.5)),
                    stripes: rng.range(2.0, 9.0),
                }
            })
            .collect();
        Self {
            seed: rng.seed(),
            nebula: [mix(palette.sky[3], palette.accent, 0.35), palette.sky[3]],
            bodies,
        }
    }

    pub(super) fn paint(&self, frame: &mut Frame, seconds: f32) {
        self.paint_nebula(frame, seconds);
        for planet in &self.bodies {
            planet.paint(frame, seconds);
        }
    }

    fn paint_nebula(&self, frame: &mut Frame, seconds: f32) {
        let (unit, end) = (frame.unit(), frame.height as f32);
        let place = |x: f32, y: f32| (x / unit + seconds * 0.008, y / unit);
        let veil = Field::new(frame, end, |x, y| {
            let (u, v) = place(x, y);
            let veil = fbm2(self.seed, u * 1.8, v * 2.4 + u, 4);
            smoothstep(0.42, 0.85, veil) * 0.75
        });
        let tone = Field::new(frame, end, |x, y| {
            let (u, v) = place(x, y);
            smoothstep(0.3, 0.7, fbm2(self.seed ^ 8, u * 1.3, v * 1.3, 2))
        });
        for y in 0..frame.height {
            for (x, pixel) in frame.row(y).iter_mut().enumerate() {
                let (x, y) = (x as f32, y as f32);
                let alpha = veil.at(x, y);
                let colour = lerp(self.nebula[0], self.nebula[1], tone.at(x, y));
                // Light is added, so that the stars shine through.
                for (channel, add) in pixel.iter_mut().zip(colour) {
                    *channel = (*channel + add * alpha * 0.8).min(1.0);
                }
            }
        }
    }
}

impl Planet {
    fn paint(&self, frame: &mut Frame, seconds: f32) {
        let unit = frame.unit();
        let radius = self.radius * unit;
        let centre = (
            self.x * frame.width as f32 - seconds * 0.006 * unit,
            self.y * frame.height as f32,
        );
        frame.glow(centre, radius * 1.5, self.bands[0], 0.28);
        if let Some(tilt) = self.ring {
            self.paint_ring(frame, centre, tilt, false);
        }
        let reach = radius as i32 + 2;
        for y in -reach..=reach {
            for x in -reach..=reach {
                let (dx, dy) = (x as f32 / radius, y as f32 / radius);
                let far = dx.hypot(dy);
                let cover = ((1.0 - far) * radius + 0.5).clamp(0.0, 1.0);
                if cover <= 0.0 {
                    continue;
                }
                let dz = (1.0 - far * far).max(0.0).sqrt();
                let lambert = (-0.62 * dx - 0.48 * dy + 0.62 * dz).max(0.0);
                let swirl = noise1(self.seed ^ 2, dx * 1.5 + dy * 5.0 + seconds * 0.2) * 0.7;
                let band = noise1(self.seed, (dy + 0.12 * dx) * self.stripes + swirl + 20.0);
                let surface = lerp(self.bands[0], self.bands[1], smoothstep(0.2, 0.8, band));
                let lit = surface.map(|c| c * (0.06 + 0.98 * lambert));
                let rim = (1.0 - dz).powi(3) * lambert;
                let colour = lerp(lit, self.light, rim * 0.6);
                frame.blend(centre.0 as i32 + x, centre.1 as i32 + y, colour, cover);
            }
        }
        if let Some(tilt) = self.ring {
            self.paint_ring(frame, centre, tilt, true);
        }
    }

    /// Half of the rings: the half behind the planet, or the one before it.
    fn paint_ring(&self, frame: &mut Frame, centre: (f32, f32), tilt: f32, front: bool) {
        let radius = self.radius * frame.unit();
        let (sin, cos) = tilt.sin_cos();
        let reach = (radius * 2.3) as i32;
        for y in -reach..=reach {
            for x in -reach..=reach {
                let (dx, dy) = (x as f32 / radius, y as f32 / radius);
                let (along, across) = (dx * cos + dy * sin, (dy * cos - dx * sin) / 0.26);
                if (across > 0.0) != front {
                    continue;
                }
                let far = along.hypot(across);
                let inside = smoothstep(1.32, 1.38, far) * (1.0 - smoothstep(2.1, 2.18, far));
                if inside > 0.0 {
                    let groove = 0.3 + 0.7 * noise1(self.seed ^ 6, far * 14.0);
                    let colour = lerp(self.bands[1], self.light, groove * 0.6);
                    let at = (centre.0 as i32 + x, centre.1 as i32 + y);
                    frame.blend(at.0, at.1, colour, inside * groove * 0.85);
                }
            }
        }
    }
}

//! Small silhouettes: what the prompt names and the artist can draw.
//!
//! A figure is a signed distance (negative inside) made of capsules, discs and triangles, in a frame where the figure
//! stands on `y = 0`, is about 1 high and `y` points down, as on the canvas.

use super::frame::{Frame, Rgb, lerp};
use super::noise::Rng;
use super::palette::Palette;
use super::words::Figure;

/// A point in a figure's own frame.
type Point = (f32, f32);

/// A figure with its place.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) figure: Figure,
    /// In units from the middle of the canvas.
    pub(super) x: f32,
    /// In units.
    pub(super) size: f32,
    mirror: f32,
    phase: f32,
}

impl Placed {
    /// Places a figure, or a few where they come in flocks.
    pub(super) fn compose(figure: Figure, wide: f32, rng: &mut Rng) -> Vec<Self> {
        let (count, low, high) = match figure {
            Figure::Birds => (5 + rng.below(6), 0.02, 0.045),
            Figure::Balloons => (2 + rng.below(3), 0.08, 0.2),
            Figure::Flowers => (38, 0.035, 0.085),
            Figure::Boat => (1, 0.16, 0.22),
            Figure::Tree => (1, 0.3, 0.42),
            Figure::House => (1, 0.11, 0.15),
            Figure::Cat | Figure::Dog => (1, 0.2, 0.27),
            Figure::Rocket => (1, 0.2, 0.26),
        };
        let reach = wide * if count == 1 { 0.3 } else { 0.47 };
        (0..count)
            .map(|_| Self {
                figure,
                x: rng.range(-reach, reach),
                size: rng.range(low, high),
                mirror: if rng.chance(0.5) { 1.0 } else { -1.0 },
                phase: rng.unit(),
            })
            .collect()
    }

    /// Whether it belongs to the air, and so is drawn before the nearest land.
    pub(super) fn flies(&self) -> bool {
        matches!(self.figure, Figure::Birds | Figure::Balloons | Figure::Rocket)
    }

    /// Draws the figure with its foot (for flying ones: its middle) at a pixel.
    pub(super) fn paint(&self, frame: &mut Frame, foot: Point, palette: &Palette, seconds: f32) {
        let size = self.size * frame.unit();
        let dark = lerp(palette.near, [0.02, 0.02, 0.04], 0.6);
        let (mirror, phase) = (self.mirror, self.phase);
        let mut shape = |colour: Rgb, distance: &dyn Fn(Point) -> f32| {
            let centre = (foot.0, foot.1 - size * 0.5);
            frame.fill(centre, (size * 0.85, size * 0.85), colour, 1.0, |x, y| {
                distance((x * mirror / size, (y - size * 0.5) / size)) * size
            });
        };
        match self.figure {
            Figure::Cat => {
                let sway = (seconds * 1.6 + phase * 6.0).sin() * 0.06;
                shape(dark, &|p| cat(p, sway));
            }
            Figure::Dog => {
                let sway = (seconds * 7.0 + phase * 6.0).sin() * 0.06;
                shape(dark, &|p| dog(p, sway));
            }
            Figure::Birds => {
                let flap = 0.28 + 0.22 * (seconds * 5.0 + phase * 20.0).sin();
                shape(dark, &|p| bird(p, flap));
            }
            Figure::Boat => {
                shape(dark, &hull);
                shape(lerp(palette.light, [1.0; 3], 0.5), &main_sail);
                shape(palette.accent, &fore_sail);
            }
            Figure::Balloons => {
                shape(dark, &basket);
                shape(palette.accent, &envelope);
                let stripe = lerp(palette.sun, [1.0; 3], 0.3);
                shape(stripe, &|p| {
                    envelope(p).max((p.0.abs() - 0.11).abs() - 0.05 * (1.0 + p.1.abs() * 0.2))
                });
            }
            Figure::Tree => {
                shape(dark, &trunk);
                let lean = (seconds * 0.9 + phase).sin() * 0.006;
                let leaves = lerp(palette.near, palette.accent, 0.8);
                shape(lerp(leaves, dark, 0.35), &|p| crown(p, lean, 1.0));
                shape(lerp(leaves, palette.light, 0.2), &|p| {
                    crown((p.0 - 0.03, p.1 + 0.04), lean, 0.8)
                });
            }
            Figure::House => {
                shape(dark, &walls);
                shape(lerp(dark, palette.accent, 0.5), &roof);
                shape(lerp(palette.sun, [1.0, 0.8, 0.4], 0.5), &|p| {
                    cut(p, (-0.2, -0.22), 0.07).min(cut(p, (0.2, -0.22), 0.07))
                });
            }
            Figure::Flowers => {
                let sway = (seconds * 1.3 + phase * 6.0).sin() * 0.06;
                shape(lerp(palette.near, [0.2, 0.5, 0.3], 0.4), &|p| {
                    capsule(p, (0.0, 0.2), (sway, -0.8), 0.03)
                });
                let petals = if phase < 0.6 {
                    palette.accent
                } else {
                    lerp(palette.light, palette.accent, 0.25)
                };
                shape(petals, &|p| blossom((p.0 - sway, p.1 + 0.8)));
                shape(palette.sun, &|p| disc(p, (sway, -0.8), 0.075));
            }
            Figure::Rocket => {
                let flame = 0.22 + 0.05 * (seconds * 19.0).sin();
                shape([1.0, 0.68, 0.25], &|p| {
                    triangle(p, (-0.08, 0.0), (0.08, 0.0), (0.0, flame))
                });
                shape(palette.accent, &fins);
                shape([0.93, 0.93, 0.95], &body);
                shape(lerp(palette.sky[1], palette.accent, 0.4), &|p| {
                    disc(p, (0.0, -0.62), 0.06)
                });
            }
        }
    }
}

fn disc(p: Point, centre: Point, radius: f32) -> f32 {
    (p.0 - centre.0).hypot(p.1 - centre.1) - radius
}

fn oval(p: Point, centre: Point, half: Point) -> f32 {
    let k = ((p.0 - centre.0) / half.0).hypot((p.1 - centre.1) / half.1);
    (k - 1.0) * half.0.min(half.1)
}

fn cut(p: Point, centre: Point, half: f32) -> f32 {
    (p.0 - centre.0).abs().max((p.1 - centre.1).abs()) - half
}

fn capsule(p: Point, a: Point, b: Point, radius: f32) -> f32 {
    let (px, py, dx, dy) = (p.0 - a.0, p.1 - a.1, b.0 - a.0, b.1 - a.1);
    let t = ((px * dx + py * dy) / (dx * dx + dy * dy)).clamp(0.0, 1.0);
    (px - dx * t).hypot(py - dy * t) - radius
}

/// Exact on edges, which is all that anti-aliasing asks for.
fn triangle(p: Point, a: Point, b: Point, c: Point) -> f32 {
    let side = |from: Point, to: Point| {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        ((p.0 - from.0) * dy - (p.1 - from.1) * dx) / dx.hypot(dy)
    };
    let (ab, bc, ca) = (side(a, b), side(b, c), side(c, a));
    // Either winding will do.
    ab.max(bc).max(ca).min((-ab).max(-bc).max(-ca))
}

fn any(parts: &[f32]) -> f32 {
    parts.iter().fold(f32::MAX, |least, d| least.min(*d))
}

fn cat(p: Point, sway: f32) -> f32 {
    any(&[
        oval(p, (0.02, -0.26), (0.24, 0.3)),
        oval(p, (-0.03, -0.46), (0.16, 0.26)),
        oval(p, (-0.06, -0.76), (0.17, 0.145)),
        triangle(p, (-0.21, -0.8), (-0.2, -1.0), (-0.06, -0.86)),
        triangle(p, (0.09, -0.8), (0.08, -1.0), (-0.06, -0.86)),
        oval(p, (-0.1, -0.04), (0.14, 0.06)),
        tail(p, sway),
    ])
}

/// A curl from the hind legs outwards and up.
fn tail(p: Point, sway: f32) -> f32 {
    let joint = |step: usize| {
        let t = step as f32 / 9.0;
        let bend = (t * 4.2 - 0.2).sin();
        (
            0.16 + 0.3 * t.powf(0.7) + 0.07 * bend + sway * t * t,
            -0.05 - 0.5 * t * t + 0.02 * bend,
        )
    };
    any(&std::array::from_fn::<f32, 9, _>(|step| {
        let thick = 0.05 - 0.0022 * step as f32;
        capsule(p, joint(step), joint(step + 1), thick)
    }))
}

fn dog(p: Point, sway: f32) -> f32 {
    any(&[
        oval(p, (0.08, -0.28), (0.22, 0.3)),
        capsule(p, (0.0, -0.35), (-0.12, -0.66), 0.14),
        oval(p, (-0.16, -0.8), (0.16, 0.13)),
        capsule(p, (-0.22, -0.77), (-0.4, -0.74), 0.065),
        oval(p, (-0.03, -0.76), (0.06, 0.15)),
        capsule(p, (-0.12, -0.45), (-0.12, -0.05), 0.06),
        oval(p, (-0.14, -0.03), (0.1, 0.05)),
        oval(p, (0.02, -0.04), (0.2, 0.06)),
        capsule(p, (0.26, -0.1), (0.46, -0.3 + sway), 0.04),
    ])
}

fn bird(p: Point, flap: f32) -> f32 {
    let p = (p.0.abs(), p.1 + 0.5);
    any(&[
        capsule(p, (0.0, 0.05), (0.34, -flap), 0.05),
        capsule(p, (0.34, -flap), (0.72, -flap * 0.45), 0.035),
        oval(p, (0.0, 0.06), (0.1, 0.07)),
    ])
}

fn hull(p: Point) -> f32 {
    let deck = (-0.13 - p.1).max(p.1 + 0.0);
    let bow = triangle(p, (-0.5, -0.14), (0.5, -0.14), (0.0, 0.45));
    any(&[deck.max(bow), capsule(p, (0.0, -0.1), (0.0, -0.98), 0.014)])
}

fn main_sail(p: Point) -> f32 {
    triangle(p, (0.035, -0.94), (0.035, -0.2), (0.4, -0.2))
}

fn fore_sail(p: Point) -> f32 {
    triangle(p, (-0.035, -0.84), (-0.035, -0.22), (-0.32, -0.22))
}

fn envelope(p: Point) -> f32 {
    any(&[
        disc(p, (0.0, -0.66), 0.32),
        triangle(p, (-0.285, -0.52), (0.285, -0.52), (0.0, -0.02)).max(p.1 + 0.22),
    ])
}

fn basket(p: Point) -> f32 {
    let basket = (p.0.abs() - 0.07).max((p.1 + 0.05).abs() - 0.055);
    any(&[
        basket,
        capsule(p, (-0.06, -0.08), (-0.11, -0.24), 0.008),
        capsule(p, (0.06, -0.08), (0.11, -0.24), 0.008),
    ])
}

fn trunk(p: Point) -> f32 {
    any(&[
        triangle(p, (-0.07, 0.04), (0.07, 0.04), (0.01, -0.9)),
        capsule(p, (0.0, -0.35), (-0.2, -0.6), 0.02),
        capsule(p, (0.0, -0.42), (0.18, -0.64), 0.018),
    ])
}

fn crown(p: Point, lean: f32, scale: f32) -> f32 {
    let p = (p.0 - lean * -p.1 * 4.0, p.1);
    any(&[
        disc(p, (-0.24, -0.6), 0.17 * scale),
        disc(p, (0.23, -0.62), 0.17 * scale),
        disc(p, (-0.12, -0.8), 0.19 * scale),
        disc(p, (0.13, -0.82), 0.18 * scale),
        disc(p, (0.0, -0.64), 0.2 * scale),
    ])
}

fn walls(p: Point) -> f32 {
    let house = (p.0.abs() - 0.4).max((p.1 + 0.2).abs() - 0.26);
    let chimney = ((p.0 - 0.24).abs() - 0.05).max((p.1 + 0.72).abs() - 0.16);
    house.min(chimney)
}

fn roof(p: Point) -> f32 {
    triangle(p, (-0.52, -0.42), (0.52, -0.42), (0.0, -0.86))
}

fn blossom(p: Point) -> f32 {
    any(&std::array::from_fn::<f32, 5, _>(|petal| {
        let (sin, cos) = (petal as f32 * 1.256_64 + 0.3).sin_cos();
        disc(p, (cos * 0.12, sin * 0.12), 0.105)
    }))
}

fn body(p: Point) -> f32 {
    let lens = disc(p, (-0.35, -0.45), 0.49).max(disc(p, (0.35, -0.45), 0.49));
    lens.max(p.1 + 0.04)
}

fn fins(p: Point) -> f32 {
    let p = (p.0.abs(), p.1);
    triangle(p, (0.05, -0.36), (0.05, -0.06), (0.24, 0.04))
}

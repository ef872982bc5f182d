//! Composing a picture from what the prompt wishes and what its seed decides, and drawing it at any moment.
//!
//! All choices are made once, in [`Scene::compose`]; drawing makes none. So the frames of a clip show one scene, and
//! the picture of a clip's first moment is the picture of the same prompt and seed.

use super::figures::Placed;
use super::frame::{Frame, Rgb, lerp, mix, rgb};
use super::land::{Cover, Layer, Relief};
use super::noise::Rng;
use super::palette::{Mood, Palette};
use super::shapes::{Orb, Planets};
use super::sky::{Sky, SkyPlan};
use super::water::Water;
use super::weather::Air;
use super::words::{Figure, Kind, Weather, Wishes};

/// A composed picture.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    palette: Palette,
    sky: Sky,
    water: Option<Water>,
    planets: Option<Planets>,
    orbs: Vec<Orb>,
    /// Back to front.
    layers: Vec<Layer>,
    figures: Vec<Placed>,
    air: Vec<Air>,
    /// For the grain.
    pub(super) grain_seed: u32,
    /// Where standing figures stand: a layer's number, or the water.
    ground: Option<usize>,
    horizon: f32,
}

impl Scene {
    /// Makes every choice. `aspect` is width by height: a wide canvas holds its figures farther apart.
    pub(super) fn compose(prompt: &str, seed: u64, index: u32, aspect: f32) -> Self {
        let rng = &mut Rng::for_picture(prompt, seed, index);
        let wishes = Wishes::of(prompt);
        let kind = wishes.kind.unwrap_or_else(|| any_kind(rng));
        let mood = wishes.mood.unwrap_or_else(|| any_mood(kind, rng));
        let palette = Palette::of(mood, wishes.tint, rng);
        let horizon = horizon_of(kind, rng);
        let dark = mood.is_dark();
        let sky = Sky::compose(
            &SkyPlan {
                horizon,
                dark: mood == Mood::Night || (dark && kind != Kind::Space && rng.chance(0.4)),
                cloudy: wishes.weather.contains(&Weather::Clouds) || rng.chance(0.3),
                aurora: wishes.weather.contains(&Weather::Aurora),
                star_count: match (kind, dark) {
                    (Kind::Space, _) => 700,
                    (_, true) => 260,
                    _ => 0,
                },
            },
            rng,
        );
        let layers = compose_layers(kind, mood, &palette, horizon, rng);
        let water = (kind == Kind::Sea).then(|| Water {
            seed: rng.seed(),
            horizon,
            deep: mix(palette.sky[0], palette.near, 0.6),
        });
        let wide = aspect.max(1.0);
        let figures = place_figures(&all_figures(kind, &wishes, rng), wide, rng);
        let air = wishes
            .weather
            .iter()
            .map(|weather| Air::compose(*weather, rng))
            .collect();
        let ground = match kind {
            Kind::Sea | Kind::Space | Kind::Orbs | Kind::City => None,
            _ => layers.len().checked_sub(1),
        };
        Self {
            water,
            planets: (kind == Kind::Space).then(|| Planets::compose(&palette, rng)),
            orbs: if kind == Kind::Orbs {
                Orb::compose(&palette, rng)
            } else {
                Vec::new()
            },
            grain_seed: rng.seed(),
            palette,
            sky,
            layers,
            figures,
            air,
            ground,
            horizon,
        }
    }

    /// Draws the scene as it is `seconds` into a clip; a picture is moment 0.
    pub(super) fn draw(&self, frame: &mut Frame, seconds: f32) {
        let palette = &self.palette;
        if self.planets.is_none() && self.orbs.is_empty() {
            self.sky.paint(frame, palette, seconds);
        } else {
            self.sky.paint_plain(frame, palette, seconds);
        }
        if let Some(planets) = &self.planets {
            planets.paint(frame, seconds);
        }
        for orb in &self.orbs {
            orb.paint(frame, seconds);
        }
        let last = self.layers.len().saturating_sub(1);
        for (number, layer) in self.layers.iter().enumerate() {
            if number == last && self.water.is_none() {
                self.draw_figures(frame, seconds, true);
            }
            layer.paint(frame, self.sky.sun_x, seconds);
        }
        if let Some(water) = &self.water {
            water.paint(frame, palette, self.sky.sun_x, seconds);
        }
        if self.layers.is_empty() || self.water.is_some() {
            self.draw_figures(frame, seconds, true);
        }
        self.draw_figures(frame, seconds, false);
        for air in &self.air {
            air.paint(frame, palette, seconds);
        }
    }

    fn draw_figures(&self, frame: &mut Frame, seconds: f32, flying: bool) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        for figure in self.figures.iter().filter(|f| f.flies() == flying) {
            let drift = match figure.figure {
                Figure::Birds => 0.05,
                Figure::Boat | Figure::Balloons => 0.012,
                _ => 0.0,
            } * seconds;
            let mut x = figure.x + drift;
            let y = if flying {
                // Spread over the sky by a hash of the place: no two at one height.
                let level = (figure.x * 37.7).sin() * 0.5 + 0.5;
                let lift = if figure.figure == Figure::Rocket {
                    0.03 * seconds
                } else {
                    0.0
                };
                (self.horizon.min(0.8) * (0.22 + 0.5 * level) - lift) * height
            } else if let Some(layer) = self.ground.and_then(|at| self.layers.get(at)) {
                x -= layer.speed * seconds;
                let foot = layer.ground_y(frame, x + layer.speed * seconds) + 0.012 * unit;
                let spread = match figure.figure {
                    Figure::Flowers => (figure.x * 91.3).sin().abs() * 0.17 * unit,
                    _ => 0.0,
                };
                (foot + spread).min(height * 0.97)
            } else if figure.figure == Figure::Boat {
                let bob = (seconds * 1.3).sin() * 0.004 * unit;
                (self.horizon + (1.0 - self.horizon) * 0.2) * height + bob
            } else {
                height * 1.005
            };
            figure.paint(frame, (width / 2.0 + x * unit, y), &self.palette, seconds);
        }
    }

    /// The colours of the caption: one to read on dark ground, one on pale.
    pub(super) fn caption_colours(&self) -> (Rgb, Rgb) {
        let text = lerp([1.0; 3], self.palette.light, 0.15);
        (text, lerp(self.palette.near, [0.0; 3], 0.6))
    }
}

fn any_kind(rng: &mut Rng) -> Kind {
    let all = [
        Kind::Hills,
        Kind::Mountains,
        Kind::Mountains,
        Kind::Forest,
        Kind::Sea,
        Kind::Desert,
        Kind::Ribbons,
        Kind::Orbs,
    ];
    rng.pick(&all, Kind::Hills)
}

fn any_mood(kind: Kind, rng: &mut Rng) -> Mood {
    use Mood::{Autumn, Cosmos, Dawn, Day, Dusk, Fog, Lagoon, Moss, Neon, Night, Pastel, Sand, Spring};
    let moods: &[Mood] = match kind {
        Kind::Space => &[Cosmos],
        Kind::City => &[Dusk, Night, Dawn, Neon],
        Kind::Desert => &[Sand, Dusk, Dawn],
        Kind::Sea => &[Lagoon, Dusk, Dawn, Day],
        Kind::Forest => &[Moss, Fog, Dawn, Autumn],
        Kind::Ribbons | Kind::Orbs => &[Pastel, Dusk, Lagoon, Sand, Neon, Dawn, Autumn],
        Kind::Hills | Kind::Mountains => &[Dawn, Day, Dusk, Spring, Autumn, Moss, Pastel, Fog],
    };
    rng.pick(moods, Dusk)
}

fn horizon_of(kind: Kind, rng: &mut Rng) -> f32 {
    match kind {
        Kind::Sea => rng.range(0.5, 0.62),
        Kind::City => rng.range(0.82, 0.9),
        Kind::Space | Kind::Orbs => 1.0,
        Kind::Ribbons => 0.5,
        Kind::Mountains => rng.range(0.6, 0.7),
        _ => rng.range(0.54, 0.64),
    }
}

/// The figures asked for, and now and then birds nobody asked for.
fn all_figures(kind: Kind, wishes: &Wishes, rng: &mut Rng) -> Vec<Figure> {
    let mut figures = wishes.figures.clone();
    // A tree alone in a forest, or a boat ashore, would be lost.
    figures.retain(|figure| match figure {
        Figure::Tree => kind != Kind::Forest && kind != Kind::Sea,
        Figure::Boat => kind == Kind::Sea,
        _ => true,
    });
    let open = matches!(kind, Kind::Hills | Kind::Mountains | Kind::Sea | Kind::Desert);
    if open && figures.is_empty() && rng.chance(0.45) {
        figures.push(Figure::Birds);
    }
    figures
}

/// Places the figures; those that stand alone get a stretch of ground each, so that none hides another.
fn place_figures(figures: &[Figure], wide: f32, rng: &mut Rng) -> Vec<Placed> {
    let mut placed: Vec<Vec<Placed>> = figures
        .iter()
        .map(|figure| Placed::compose(*figure, wide, rng))
        .collect();
    let mut alone: Vec<&mut Placed> = placed
        .iter_mut()
        .filter_map(|group| match group.as_mut_slice() {
            [one] if !one.flies() => Some(one),
            _ => None,
        })
        .collect();
    let count = alone.len() as f32;
    if count > 1.0 {
        for (number, figure) in alone.iter_mut().enumerate() {
            let middle = (number as f32 + 0.5) / count - 0.5;
            figure.x = (middle * 0.86 + rng.range(-0.12, 0.12) / count) * wide;
        }
    }
    // The largest first: the small ones stand before them.
    placed.sort_by(|a, b| size(b).total_cmp(&size(a)));
    placed.into_iter().flatten().collect()
}

fn size(group: &[Placed]) -> f32 {
    group.first().map_or(0.0, |figure| figure.size)
}

fn compose_layers(kind: Kind, mood: Mood, palette: &Palette, horizon: f32, rng: &mut Rng) -> Vec<Layer> {
    let count = match kind {
        Kind::Space | Kind::Orbs => 0,
        Kind::Sea => 1 + rng.below(2),
        Kind::City => 4,
        Kind::Ribbons => 8 + rng.below(4),
        Kind::Mountains | Kind::Desert => 4 + rng.below(2),
        Kind::Hills | Kind::Forest => 5 + rng.below(2),
    };
    (0..count)
        .map(|number| {
            let near = if count > 1 {
                number as f32 / (count - 1) as f32
            } else {
                0.0
            };
            let mut layer = plain_layer(palette, horizon, near, rng);
            match kind {
                Kind::Ribbons => ribbon(&mut layer, palette, near, rng),
                Kind::City => {
                    layer.relief = Relief::Flat;
                    layer.base = horizon + 0.14 * near;
                    let lit = if mood.is_dark() || mood == Mood::Dusk {
                        0.62
                    } else {
                        0.2
                    };
                    layer.cover = Cover::Blocks(
                        0.62 - 0.24 * near + rng.range(-0.05, 0.05),
                        if number == 0 { 0.0 } else { lit * (0.5 + 0.5 * near) },
                    );
                    layer.relief_light = 0.0;
                    layer.fade = 0.55;
                    layer.windows = mix(palette.sun, rgb(0xFF_C8_60), 0.6);
                }
                Kind::Mountains => {
                    layer.relief = if near > 0.85 { Relief::Rolling } else { Relief::Peaks };
                    layer.base = horizon + 0.03 + (0.96 - horizon) * near.powf(1.3);
                    layer.amplitude = if near > 0.85 { 0.07 } else { 0.36 - 0.17 * near };
                    layer.frequency = 1.1 + 0.9 * near + rng.range(0.0, 0.4);
                    layer.relief_light = 0.75 - 0.25 * near;
                    layer.snow_line =
                        (near < 0.6 && mood != Mood::Fire).then_some(if mood == Mood::Frost { 0.02 } else { 0.17 });
                    layer.fade = 0.3;
                    if near > 0.7 {
                        layer.cover = Cover::Conifers(0.045 + 0.05 * near);
                        layer.snow_line = None;
                    }
                }
                Kind::Forest => {
                    layer.cover = Cover::Conifers(0.05 + 0.26 * near * near);
                    layer.amplitude = 0.1;
                    layer.relief_light = 0.0;
                    layer.base = horizon + 0.02 + (0.98 - horizon) * near.powf(1.15);
                    layer.fade = 0.16 + 0.1 * near;
                }
                Kind::Desert => {
                    layer.relief = Relief::Dunes;
                    layer.amplitude = 0.1 + 0.09 * near;
                    layer.frequency = 1.5 - 0.7 * near + rng.range(0.0, 0.3);
                    layer.relief_light = 0.8;
                    layer.top = mix(layer.top, palette.far, 0.35);
                    layer.fade = 0.7;
                }
                Kind::Sea => {
                    layer.relief = Relief::Peaks;
                    layer.base = horizon + 0.03;
                    layer.amplitude = 0.16 - 0.05 * near;
                    layer.frequency = 0.8 + near * 0.5;
                    layer.top = mix(palette.far, palette.near, 0.12 + 0.3 * near);
                    layer.relief_light = 0.3;
                    layer.speed *= 0.3;
                }
                Kind::Hills | Kind::Space | Kind::Orbs => {}
            }
            if mood == Mood::Frost && matches!(kind, Kind::Hills | Kind::Forest) {
                // Snow lies on all of it: white land under the outline, the mood's blue in its shade.
                let white = mix(rgb(0xF6_F8_FC), palette.far, 0.35 * (1.0 - near));
                layer.bottom = mix(white, palette.far, 0.2);
                if kind == Kind::Hills {
                    layer.top = white;
                    layer.bottom = mix(palette.far, palette.near, 0.25 * near);
                    layer.fade = 0.34;
                }
            }
            layer
        })
        .collect()
}

/// Hills: what the other kinds start from.
fn plain_layer(palette: &Palette, horizon: f32, near: f32, rng: &mut Rng) -> Layer {
    let top = mix(palette.far, palette.near, near.powf(0.9));
    let haze = mix(palette.sky[3], palette.far, 0.35);
    Layer {
        seed: rng.seed(),
        base: horizon + 0.02 + (0.9 - horizon) * near.powf(1.1),
        amplitude: 0.15 - 0.03 * near,
        frequency: 1.5 - 0.5 * near + rng.range(-0.15, 0.25),
        relief: Relief::Rolling,
        cover: Cover::Bare,
        top,
        // Mist gathers in the valleys between far layers, none at our feet.
        bottom: mix(haze, lerp(top, [0.0; 3], 0.25), near * near * 0.8 + 0.2),
        fade: 0.24 + 0.3 * near,
        light: palette.light,
        relief_light: 0.34,
        snow_line: None,
        shadow: 0.0,
        speed: 0.004 + 0.035 * near * near,
        windows: palette.accent,
    }
}

fn ribbon(layer: &mut Layer, palette: &Palette, near: f32, rng: &mut Rng) {
    let stops = [
        palette.sky[3],
        palette.sun,
        palette.accent,
        palette.sky[2],
        palette.sky[1],
        palette.sky[0],
        palette.near,
    ];
    let place = near * (stops.len() - 1) as f32;
    let low = (place as usize).min(stops.len() - 2);
    let stop = |at: usize| stops.get(at).copied().unwrap_or(palette.near);
    let colour = mix(stop(low), stop(low + 1), place - low as f32);
    layer.relief = Relief::Waves;
    layer.base = 0.2 + 0.78 * near;
    layer.amplitude = rng.range(0.08, 0.15);
    layer.frequency = rng.range(1.2, 2.4);
    layer.top = mix(colour, [1.0; 3], 0.08);
    layer.bottom = mix(colour, palette.sky[0], 0.3);
    layer.fade = 0.4;
    layer.relief_light = 0.0;
    layer.shadow = 0.42;
    layer.speed = rng.range(0.015, 0.06) * if rng.chance(0.5) { 1.0 } else { -1.0 };
}

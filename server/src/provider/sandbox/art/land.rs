//! Layers of land, one behind the other: hills, peaks, dunes, waves of paper, forests and rows of houses.
//!
//! A layer is a height over every column. It is sampled four times a pixel, so that edges are smooth however steep.
//! Heights and lengths are in units (the shorter side of the canvas); `base` is a fraction of the height.

use super::frame::{Frame, Rgb, lerp, mix};
use super::noise::{fbm1, lattice, noise1, noise2, smoothstep};

/// Samples a pixel's width.
const SAMPLES: usize = 4;
/// Steps of the vertical gradient of a layer.
const SHADES: usize = 64;

/// The ground's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relief {
    Rolling,
    Peaks,
    Dunes,
    Waves,
    Flat,
}

/// What stands on the ground and makes the outline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cover {
    Bare,
    /// Trees about this high.
    Conifers(f32),
    /// Buildings up to this high, with this share of their windows lit.
    Blocks(f32, f32),
}

/// One layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) seed: u32,
    pub(super) base: f32,
    pub(super) amplitude: f32,
    pub(super) frequency: f32,
    pub(super) relief: Relief,
    pub(super) cover: Cover,
    pub(super) top: Rgb,
    pub(super) bottom: Rgb,
    /// The depth under the outline at which `bottom` is reached.
    pub(super) fade: f32,
    pub(super) light: Rgb,
    /// How strongly slopes towards the sun catch its light.
    pub(super) relief_light: f32,
    /// Height above `base` from which snow lies.
    pub(super) snow_line: Option<f32>,
    /// A soft shadow on what is behind, as between sheets of paper.
    pub(super) shadow: f32,
    /// Units a second it moves to the left in a clip.
    pub(super) speed: f32,
    pub(super) windows: Rgb,
}

impl Layer {
    /// Height of the bare ground over a point.
    pub(super) fn ground(&self, x: f32) -> f32 {
        let x = x * self.frequency + 100.0;
        let shape = match self.relief {
            Relief::Flat => 0.0,
            Relief::Rolling => (fbm1(self.seed, x, 4) - 0.5) * 2.0,
            Relief::Waves => {
                let bend = 1.6 * noise1(self.seed, x * 0.31);
                0.6 * (x * 1.4 + bend * 2.0 + self.seed as f32 % std::f32::consts::TAU).sin()
                    + 0.8 * (noise1(self.seed ^ 1, x * 0.7) - 0.5)
            }
            Relief::Peaks => peaks(self.seed, x),
            Relief::Dunes => dunes(self.seed, x),
        };
        shape * self.amplitude
    }

    /// Height of the outline: the ground and what stands on it.
    fn outline(&self, x: f32) -> f32 {
        let ground = self.ground(x);
        match self.cover {
            Cover::Bare => ground,
            Cover::Conifers(tree) => {
                let large = conifers(self.seed, x, tree, tree * 0.42);
                let small = conifers(self.seed ^ 0x5A, x, tree * 0.66, tree * 0.23);
                ground + large.max(small)
            }
            Cover::Blocks(tallest, _) => {
                let wide = Row::wide(self.seed, tallest).height(x);
                ground + wide.max(Row::slim(self.seed, tallest).height(x))
            }
        }
    }

    /// Where the ground is, in pixels, at a point given in units from the middle.
    pub(super) fn ground_y(&self, frame: &Frame, x: f32) -> f32 {
        self.base * frame.height as f32 - self.ground(x) * frame.unit()
    }

    /// Paints the layer from its outline to the bottom of the canvas.
    pub(super) fn paint(&self, frame: &mut Frame, sun_x: f32, seconds: f32) {
        let (width, height, unit) = (frame.width, frame.height, frame.unit());
        let shift = self.speed * seconds;
        let base = self.base * height as f32;
        let units = |x: f32| (x - width as f32 / 2.0) / unit + shift;
        let outline: Vec<[f32; SAMPLES]> = (0..width)
            .map(|x| {
                std::array::from_fn(|k| {
                    let x = x as f32 + (k as f32 + 0.5) / SAMPLES as f32;
                    base - self.outline(units(x)) * unit
                })
            })
            .collect();
        let slopes = [0.011, 0.05].map(|reach| -> Vec<f32> {
            (0..width)
                .map(|x| {
                    let u = units(x as f32);
                    (self.ground(u + reach) - self.ground(u - reach)) / (2.0 * reach)
                })
                .collect()
        });
        let shades: Vec<Rgb> = (0..SHADES)
            .map(|step| mix(self.top, self.bottom, step as f32 / (SHADES - 1) as f32))
            .collect();
        let highest = outline
            .iter()
            .flatten()
            .fold(height as f32, |least, y| least.min(*y))
            .max(0.0);
        if self.shadow > 0.0 {
            self.paint_shadow(frame, &outline);
        }
        // One side for the whole scene: with the sun as far as it is, its light does not turn under it.
        let sun_side = if sun_x < 0.0 { -1.0 } else { 1.0 };
        for y in highest as usize..height {
            let row_top = y as f32;
            let above_base = (base - row_top) / unit;
            for (x, (pixel, edge)) in frame.row(y).iter_mut().zip(&outline).enumerate() {
                let cover = edge
                    .iter()
                    .map(|edge| (row_top + 1.0 - edge).clamp(0.0, 1.0))
                    .sum::<f32>()
                    / SAMPLES as f32;
                if cover <= 0.0 {
                    continue;
                }
                let depth = ((row_top + 0.5 - edge[SAMPLES / 2]) / unit).max(0.0);
                let step = (depth / self.fade * SHADES as f32) as usize;
                let mut colour = shades.get(step.min(SHADES - 1)).copied().unwrap_or(self.bottom);
                if self.relief_light > 0.0 {
                    let at = Spot {
                        u: units(x as f32),
                        column: x,
                        depth,
                        above_base,
                        sun_side,
                    };
                    colour = self.lit(colour, &at, &slopes, unit);
                }
                *pixel = lerp(*pixel, colour, cover);
            }
        }
        if let Cover::Blocks(tallest, share) = self.cover {
            self.paint_windows(frame, tallest, share, shift);
        }
    }

    /// Light and shade: a point under the outline looks the way the outline does a little to its side, which draws
    /// ribs running down from the crests.
    fn lit(&self, colour: Rgb, at: &Spot, slopes: &[Vec<f32>; 2], unit: f32) -> Rgb {
        let zigzag = noise1(self.seed ^ 9, at.depth * 15.0) - 0.5;
        let aside = match self.relief {
            Relief::Peaks => {
                let fine = noise1(self.seed ^ 6, at.depth * 46.0) - 0.5;
                (0.075 * zigzag + 0.022 * fine) * smoothstep(0.0, 0.05, at.depth) - at.sun_side * at.depth * 0.14
            }
            Relief::Dunes => at.depth * (0.35 + 0.3 * noise1(self.seed ^ 9, at.depth * 7.0)) * -at.sun_side,
            _ => at.depth * 0.5 * zigzag,
        };
        let column = at.column as f32 + aside * unit;
        let read = |slopes: &[f32]| {
            let last = slopes.len().saturating_sub(1);
            let column = (column.max(0.0) as usize).min(last);
            slopes.get(column).copied().unwrap_or(0.0)
        };
        // Every notch shows at the crest; farther down only the mountain's own sides do.
        let [fine, broad] = slopes;
        let down = smoothstep(0.01, 0.09, at.depth);
        let slope = read(fine) * (1.0 - down) + read(broad) * down;
        // Land that falls to the right faces right.
        let facing = smoothstep(-0.35, 0.35, -slope * at.sun_side);
        let reach = 1.0 / (1.0 + at.depth * 3.2);
        let mut colour = lerp(colour, self.light, facing * self.relief_light * reach);
        let shade = (1.0 - facing) * self.relief_light * reach * 0.45;
        colour = lerp(colour, colour.map(|c| c * 0.55), shade);
        if let Some(line) = self.snow_line {
            let jag = 0.11 * (noise2(self.seed ^ 4, at.u * 26.0, at.above_base * 9.0) - 0.5) + 0.05 * (facing - 0.5);
            let snow = smoothstep(-0.008, 0.008, at.above_base + jag - line);
            if snow > 0.0 {
                let white = lerp(self.light, [0.98, 0.98, 1.0], 0.6);
                let shaded = lerp(white, self.top, 0.55);
                colour = lerp(colour, lerp(shaded, white, facing), snow * 0.92);
            }
        }
        colour
    }

    fn paint_shadow(&self, frame: &mut Frame, outline: &[[f32; SAMPLES]]) {
        let reach = (0.05 * frame.unit()).max(2.0);
        for (x, edge) in outline.iter().enumerate() {
            let foot = edge[SAMPLES / 2];
            let from = (foot - reach).max(0.0) as i32;
            let to = (foot + 1.0).min(frame.height as f32) as i32;
            for y in from..to {
                let near = 1.0 - ((foot - y as f32) / reach).clamp(0.0, 1.0);
                frame.blend(x as i32, y, [0.02, 0.02, 0.06], near * near * near * self.shadow);
            }
        }
    }

    fn paint_windows(&self, frame: &mut Frame, tallest: f32, share: f32, shift: f32) {
        let half_width = frame.width as f32 / 2.0 / frame.unit();
        for row in [Row::wide(self.seed, tallest), Row::slim(self.seed, tallest)] {
            let first = ((shift - half_width) / row.spacing).floor() as i32 - 1;
            let last = ((shift + half_width) / row.spacing).ceil() as i32;
            for cell in first..=last {
                let middle = (cell as f32 + 0.5) * row.spacing;
                self.paint_block_windows(frame, &row, &row.block(middle), (share, shift));
            }
        }
    }

    fn paint_block_windows(&self, frame: &mut Frame, row: &Row, block: &Block, (share, shift): (f32, f32)) {
        let (width, height, unit) = (frame.width as f32, frame.height as f32, frame.unit());
        let pitch = row.tallest * 0.04;
        let storey = pitch * 1.35;
        let columns = ((block.to - block.from) / pitch - 1.0) as i32;
        let storeys = (block.level * row.tallest / storey) as i32;
        let margin = (block.to - block.from - columns as f32 * pitch) / 2.0;
        let seed = row.seed ^ (block.cell as u32).wrapping_mul(0x9E37_79B1);
        for (column, number) in (0..columns).flat_map(|c| (1..storeys).map(move |n| (c, n))) {
            let x = block.from + margin + (column as f32 + 0.5) * pitch;
            let level = block.level * row.tallest - number as f32 * storey;
            let dark = lattice(seed, column, number) > share;
            // Where both rows have a wall only the higher one shows, or windows would lie over each other.
            if dark || row.hidden_by(self, x) {
                continue;
            }
            let centre = (
                width / 2.0 + (x - shift) * unit,
                self.base * height - (self.ground(x) + level) * unit,
            );
            let half = (pitch * unit * 0.25, pitch * unit * 0.34);
            let glow = 0.35 + 0.6 * lattice(seed ^ 5, column, number);
            frame.fill(centre, half, self.windows, glow, |x, y| {
                (x.abs() - half.0).max(y.abs() - half.1)
            });
        }
    }
}

/// One of the two rows of buildings of a layer.
struct Row {
    seed: u32,
    spacing: f32,
    tallest: f32,
    slim: bool,
}

impl Row {
    fn wide(seed: u32, tallest: f32) -> Self {
        Self {
            seed,
            spacing: tallest * 0.34,
            tallest: tallest * 0.8,
            slim: false,
        }
    }

    fn slim(seed: u32, tallest: f32) -> Self {
        Self {
            seed: seed ^ 0x77,
            spacing: tallest * 0.21,
            tallest,
            slim: true,
        }
    }

    fn block(&self, x: f32) -> Block {
        Block::at(self.seed, x, self.spacing)
    }

    fn height(&self, x: f32) -> f32 {
        self.block(x).height(x) * self.tallest
    }

    /// Whether the other row of the layer is the higher one here.
    fn hidden_by(&self, layer: &Layer, x: f32) -> bool {
        let Cover::Blocks(tallest, _) = layer.cover else {
            return false;
        };
        let other = if self.slim {
            Self::wide(layer.seed, tallest)
        } else {
            Self::slim(layer.seed, tallest)
        };
        other.height(x) > self.height(x)
    }
}

/// Where a pixel lies on a layer.
struct Spot {
    u: f32,
    column: usize,
    depth: f32,
    above_base: f32,
    /// `1.0` if light comes from the right, `-1.0` if from the left.
    sun_side: f32,
}

fn peaks(seed: u32, x: f32) -> f32 {
    let (mut sum, mut weight, mut scale) = (0.0, 1.0, 1.0);
    for octave in 0..6_u32 {
        let fold = 1.0 - (2.0 * noise1(seed.wrapping_add(octave * 31), x * scale + octave as f32 * 3.7) - 1.0).abs();
        sum += weight * fold;
        weight *= 0.46;
        scale *= 2.1;
    }
    sum * 0.78 - 0.6
}

/// Long windward slopes, short slip faces, a sharp crest between.
fn dunes(seed: u32, x: f32) -> f32 {
    let x = x + 0.8 * noise1(seed ^ 2, x * 0.6);
    let cell = x.floor();
    let t = x - cell;
    let level = 0.45 + 0.75 * lattice(seed, cell as i32, 0);
    let crest = 0.6 + 0.2 * lattice(seed, cell as i32, 1);
    let side = if t < crest {
        let rise = t / crest;
        rise * rise * (1.6 - 0.6 * rise)
    } else {
        let fall = (1.0 - t) / (1.0 - crest);
        fall * fall * (3.0 - 2.0 * fall)
    };
    side * level - 0.3
}

/// Height of a row of trees over a point.
fn conifers(seed: u32, x: f32, height: f32, spacing: f32) -> f32 {
    let middle = (x / spacing).floor() as i32;
    let mut top = 0.0_f32;
    for cell in middle - 1..=middle + 1 {
        let centre = (cell as f32 + 0.2 + 0.6 * lattice(seed, cell, 0)) * spacing;
        let tall = height * (0.5 + 0.5 * lattice(seed, cell, 1));
        let half = tall * (0.17 + 0.06 * lattice(seed, cell, 2));
        let t = (x - centre).abs() / half;
        if t < 1.0 {
            // Tiers of branches: a saw along the flank.
            let tier = (t * 6.0).fract();
            top = top.max(tall * (1.0 - t) * (0.94 + 0.1 * tier) + tall * 0.05 * tier * t);
        }
    }
    top
}

/// One building of a row; the row is cut into cells of equal width.
struct Block {
    cell: i32,
    from: f32,
    to: f32,
    /// Height as a share of the tallest.
    level: f32,
    seed: u32,
}

impl Block {
    fn at(seed: u32, x: f32, spacing: f32) -> Self {
        let cell = (x / spacing).floor() as i32;
        let left = cell as f32 * spacing;
        Self {
            cell,
            from: left + spacing * 0.12 * lattice(seed, cell, 0),
            to: left + spacing * (1.0 - 0.14 * lattice(seed, cell, 1)),
            level: 0.22 + 0.78 * lattice(seed, cell, 2).powf(1.5),
            seed,
        }
    }

    fn height(&self, x: f32) -> f32 {
        if x < self.from || x > self.to {
            return 0.0;
        }
        let across = (x - self.from) / (self.to - self.from);
        let style = lattice(self.seed, self.cell, 3);
        let off_centre = (across - 0.5).abs();
        if style < 0.2 && off_centre < 0.035 {
            self.level + 0.12
        } else if style < 0.35 && off_centre > 0.3 {
            self.level * 0.92
        } else if style > 0.85 {
            self.level + 0.07 * (0.5 - across)
        } else {
            self.level
        }
    }
}

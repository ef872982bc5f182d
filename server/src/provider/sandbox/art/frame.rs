//! Colours and the surface they are laid on.
//!
//! Colours are sRGB, `0.0..=1.0` a channel. Gradients between named colours go through Oklab ([`mix`]), which keeps
//! the middle of a sunset from turning grey; covering one pixel by another ([`Frame::blend`]) is a plain weighting.

use super::noise::lattice;

/// An sRGB colour.
pub(super) type Rgb = [f32; 3];

/// The colour of `0xRRGGBB`.
pub(super) fn rgb(hex: u32) -> Rgb {
    [16, 8, 0].map(|shift| ((hex >> shift) & 0xFF) as f32 / 255.0)
}

/// `a` towards `b`, weighted in sRGB: for covering and light.
pub(super) fn lerp(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [
        a[0] + (b[0] - a[0]) * t,
        a[1] + (b[1] - a[1]) * t,
        a[2] + (b[2] - a[2]) * t,
    ]
}

/// `a` towards `b` through Oklab: for gradients.
pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    from_oklab(lerp(to_oklab(a), to_oklab(b), t.clamp(0.0, 1.0)))
}

/// The same colour turned by `angle` radians on the colour wheel, with its lightness scaled.
pub(super) fn turn(colour: Rgb, angle: f32, lightness: f32) -> Rgb {
    let [l, a, b] = to_oklab(colour);
    let (sin, cos) = angle.sin_cos();
    from_oklab([l * lightness, a * cos - b * sin, a * sin + b * cos])
}

/// The colour with its hue and strength moved towards those of `tint`; its lightness stays.
pub(super) fn tinted(colour: Rgb, tint: Rgb, amount: f32) -> Rgb {
    let [l, a, b] = to_oklab(colour);
    let [_, ta, tb] = to_oklab(tint);
    from_oklab([l, a + (ta - a) * amount, b + (tb - b) * amount])
}

fn to_oklab(colour: Rgb) -> Rgb {
    let [r, g, b] = colour.map(|c| {
        if c <= 0.040_45 {
            c / 12.92
        } else {
            ((c + 0.055) / 1.055).powf(2.4)
        }
    });
    let l = (0.412_221_46 * r + 0.536_332_55 * g + 0.051_445_995 * b).cbrt();
    let m = (0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b).cbrt();
    let s = (0.088_302_46 * r + 0.281_718_85 * g + 0.629_978_7 * b).cbrt();
    [
        0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
        1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
        0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
    ]
}

fn from_oklab([lightness, a, b]: Rgb) -> Rgb {
    let l = (lightness + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
    let m = (lightness - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
    let s = (lightness - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
    [
        4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
        -1.268_438 * l + 2.609_757_4 * m - 0.341_319_4 * s,
        -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
    ]
    .map(|c| {
        let c = c.clamp(0.0, 1.0);
        if c <= 0.003_130_8 {
            c * 12.92
        } else {
            1.055 * c.powf(1.0 / 2.4) - 0.055
        }
    })
}

/// A picture being drawn.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Row by row, `width * height` of them.
    pub(super) pixels: Vec<Rgb>,
}

impl Frame {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self {
            width,
            height,
            pixels: vec![[0.0; 3]; width * height],
        }
    }

    /// The shorter side in pixels: the unit of everything's size, so that one scene looks alike on every canvas.
    pub(super) fn unit(&self) -> f32 {
        self.width.min(self.height) as f32
    }

    /// The pixels of one row; empty outside the picture.
    pub(super) fn row(&mut self, y: usize) -> &mut [Rgb] {
        let start = y * self.width;
        self.pixels.get_mut(start..start + self.width).unwrap_or_default()
    }

    /// Covers one pixel by `alpha` (`0..=1`) of a colour. Outside the picture nothing happens.
    pub(super) fn blend(&mut self, x: i32, y: i32, colour: Rgb, alpha: f32) {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height {
            return;
        }
        let at = y as usize * self.width + x as usize;
        if let Some(pixel) = self.pixels.get_mut(at) {
            *pixel = lerp(*pixel, colour, alpha.clamp(0.0, 1.0));
        }
    }

    /// Fills what `distance` (signed, in pixels, negative inside) encloses, within a box of half sides around a point.
    ///
    /// The edge is one pixel wide, hence smooth.
    pub(super) fn fill(
        &mut self,
        centre: (f32, f32),
        half: (f32, f32),
        colour: Rgb,
        alpha: f32,
        distance: impl Fn(f32, f32) -> f32,
    ) {
        let x_from = (centre.0 - half.0 - 1.0).max(0.0) as i32;
        let x_to = (centre.0 + half.0 + 1.0).min(self.width as f32) as i32;
        let y_from = (centre.1 - half.1 - 1.0).max(0.0) as i32;
        let y_to = (centre.1 + half.1 + 1.0).min(self.height as f32) as i32;
        for y in y_from..=y_to {
            for x in x_from..=x_to {
                let d = distance(x as f32 + 0.5 - centre.0, y as f32 + 0.5 - centre.1);
                let cover = (0.5 - d).clamp(0.0, 1.0);
                if cover > 0.0 {
                    self.blend(x, y, colour, cover * alpha);
                }
            }
        }
    }

    /// A disc with a smooth edge.
    pub(super) fn disc(&mut self, centre: (f32, f32), radius: f32, colour: Rgb, alpha: f32) {
        self.fill(centre, (radius, radius), colour, alpha, |x, y| x.hypot(y) - radius);
    }

    /// A blurred dot, brightest in its middle.
    pub(super) fn glow(&mut self, centre: (f32, f32), radius: f32, colour: Rgb, alpha: f32) {
        let reach = radius.ceil() as i32 + 1;
        let (cx, cy) = (centre.0 as i32, centre.1 as i32);
        for y in cy - reach..=cy + reach {
            for x in cx - reach..=cx + reach {
                let d = (x as f32 + 0.5 - centre.0).hypot(y as f32 + 0.5 - centre.1) / radius;
                if d < 1.0 {
                    let soft = 1.0 - d * d;
                    self.blend(x, y, colour, alpha * soft * soft);
                }
            }
        }
    }

    /// Quantises to 8 bits: RGB, row by row, with darkened corners and `grain` (amplitude, in 1/255) of film grain.
    ///
    /// A grain below 1 is still there: it dithers, without which the skies show bands.
    pub(super) fn to_rgb8(&self, seed: u32, grain: f32) -> Vec<u8> {
        let (width, height) = (self.width.max(1) as f32, self.height.max(1) as f32);
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for (y, row) in self.pixels.chunks_exact(self.width.max(1)).enumerate() {
            let dy = (y as f32 / height - 0.5) * 2.0;
            for (x, pixel) in row.iter().enumerate() {
                let dx = (x as f32 / width - 0.5) * 2.0;
                let corner = dx * dx * dy * dy + 0.25 * (dx * dx + dy * dy);
                let shade = 255.0 * (1.0 - 0.16 * corner);
                let speck = (lattice(seed, x as i32, y as i32) - 0.5) * 2.0 * grain;
                bytes.extend(pixel.map(|c| (c * shade + speck + 0.5).clamp(0.0, 255.0) as u8));
            }
        }
        bytes
    }
}

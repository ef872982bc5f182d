//! Randomness that is a function of its inputs: a small generator and value noise.
//!
//! Invariant: nothing here reads a clock, an address or the environment, so equal seeds give equal pictures.

use sha2::{Digest, Sha256};

/// SplitMix64: 64 bits of state, one addition and two multiplications a step. Good enough for pictures, not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// A generator whose every draw depends on all three inputs.
    ///
    /// The prompt's length is hashed too, so that moving a byte between the fields cannot give the same stream.
    pub(super) fn for_picture(prompt: &str, seed: u64, index: u32) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"velro sandbox art 1");
        hash.update((prompt.len() as u64).to_le_bytes());
        hash.update(prompt.as_bytes());
        hash.update(seed.to_le_bytes());
        hash.update(index.to_le_bytes());
        let state = hash
            .finalize()
            .iter()
            .take(8)
            .fold(0_u64, |state, byte| (state << 8) | u64::from(*byte));
        Self(state)
    }

    /// 64 uniform bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A seed for a noise field.
    pub(super) fn seed(&mut self) -> u32 {
        (self.bits() >> 32) as u32
    }

    /// Uniform in `0.0..1.0`.
    pub(super) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform between `low` and `high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..len`; `len` must not be 0.
    pub(super) fn below(&mut self, len: usize) -> usize {
        (self.bits() % len as u64) as usize
    }

    /// One of the choices, or `fallback` if there are none.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T], fallback: T) -> T {
        if choices.is_empty() {
            return fallback;
        }
        let at = self.below(choices.len());
        choices.get(at).copied().unwrap_or(fallback)
    }
}

/// `0..=1` on the whole of the lattice, from a point and a seed.
pub(super) fn lattice(seed: u32, x: i32, y: i32) -> f32 {
    let mut bits = seed ^ (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77).rotate_left(13);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2C1B_3C6D);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297A_2D39);
    bits ^= bits >> 15;
    (bits >> 8) as f32 / (1_u32 << 24) as f32
}

/// Splits into whole and fraction. Cheaper than `floor`, which is a call on the baseline x86-64.
fn split(value: f32) -> (i32, f32) {
    let mut whole = value as i32;
    if (whole as f32) > value {
        whole -= 1;
    }
    (whole, value - whole as f32)
}

fn fade(t: f32) -> f32 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

/// Smooth noise along a line, `0..=1`, one bump a unit.
pub(super) fn noise1(seed: u32, x: f32) -> f32 {
    let (cell, t) = split(x);
    let (a, b) = (lattice(seed, cell, 0), lattice(seed, cell + 1, 0));
    a + (b - a) * fade(t)
}

/// Smooth noise on the plane, `0..=1`, one bump a unit.
pub(super) fn noise2(seed: u32, x: f32, y: f32) -> f32 {
    let ((cx, tx), (cy, ty)) = (split(x), split(y));
    let (tx, ty) = (fade(tx), fade(ty));
    let top = lattice(seed, cx, cy) * (1.0 - tx) + lattice(seed, cx + 1, cy) * tx;
    let low = lattice(seed, cx, cy + 1) * (1.0 - tx) + lattice(seed, cx + 1, cy + 1) * tx;
    top + (low - top) * ty
}

/// Octaves of [`noise1`], each twice as fine and half as strong; `0..=1`.
pub(super) fn fbm1(seed: u32, x: f32, octaves: u32) -> f32 {
    octave_sum(octaves, |octave, scale| {
        noise1(seed.wrapping_add(octave * 0x51), x * scale + octave as f32 * 7.3)
    })
}

/// Octaves of [`noise2`]; `0..=1`.
pub(super) fn fbm2(seed: u32, x: f32, y: f32, octaves: u32) -> f32 {
    octave_sum(octaves, |octave, scale| {
        let shift = octave as f32 * 5.7;
        noise2(seed.wrapping_add(octave * 0x51), x * scale + shift, y * scale - shift)
    })
}

fn octave_sum(octaves: u32, sample: impl Fn(u32, f32) -> f32) -> f32 {
    let (mut sum, mut weight, mut scale, mut total) = (0.0, 1.0, 1.0, 0.0);
    for octave in 0..octaves {
        sum += weight * sample(octave, scale);
        total += weight;
        weight *= 0.5;
        scale *= 2.03;
    }
    if total > 0.0 { sum / total } else { 0.0 }
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let t = ((value - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

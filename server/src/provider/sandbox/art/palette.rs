//! Colours that go together, by mood.

use super::frame::{Rgb, rgb, tinted, turn};
use super::noise::Rng;

/// The light and air of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Dawn,
    Day,
    Dusk,
    Night,
    Fire,
    Frost,
    Spring,
    Autumn,
    Sand,
    Lagoon,
    Moss,
    Neon,
    Fog,
    Pastel,
    Cosmos,
}

impl Mood {
    /// Whether stars are out.
    pub(super) fn is_dark(self) -> bool {
        matches!(self, Self::Night | Self::Neon | Self::Cosmos)
    }
}

/// What a mood paints with.
#[derive(Debug, Clone)]
pub(super) struct Palette {
    /// From the zenith down to the horizon.
    pub(super) sky: [Rgb; 4],
    /// The farthest land; near the colour of the horizon, as air makes it.
    pub(super) far: Rgb,
    /// The nearest land.
    pub(super) near: Rgb,
    /// Sun or moon.
    pub(super) sun: Rgb,
    /// The light on what faces the sun, and on clouds.
    pub(super) light: Rgb,
    /// Flowers, sails, windows.
    pub(super) accent: Rgb,
}

impl Palette {
    /// The palette of a mood, turned a little by the seed and drawn towards a wished colour.
    pub(super) fn of(mood: Mood, tint: Option<Rgb>, rng: &mut Rng) -> Self {
        let (angle, lightness) = (rng.range(-0.16, 0.16), rng.range(0.97, 1.03));
        let dye = |hex: u32| {
            let colour = turn(rgb(hex), angle, lightness);
            tint.map_or(colour, |tint| tinted(colour, tint, 0.5))
        };
        let [s0, s1, s2, s3, far, near, sun, light, accent] = hexes(mood);
        Self {
            sky: [dye(s0), dye(s1), dye(s2), dye(s3)],
            far: dye(far),
            near: dye(near),
            // Sun, light and accents keep the mood's own hue: they are what stands out against the rest.
            sun: rgb(sun),
            light: rgb(light),
            accent: turn(rgb(accent), angle, 1.0),
        }
    }
}

/// Four of the sky, far, near, sun, light, accent.
fn hexes(mood: Mood) -> [u32; 9] {
    match mood {
        Mood::Dawn => [
            0x5F86B8, 0xA9B4D6, 0xF3C9BE, 0xFFE6C4, 0xDDB4BC, 0x3A3470, 0xFFF3D6, 0xFFD9B0, 0xE8705A,
        ],
        Mood::Day => [
            0x2F7FC4, 0x64AEE0, 0xA9D8F0, 0xE9F6F2, 0x9CC4CF, 0x24573F, 0xFFFBE6, 0xFFFFFF, 0xE9503F,
        ],
        Mood::Dusk => [
            0x2B2A5C, 0x7A3E79, 0xE0685F, 0xFFC27A, 0xB9586A, 0x1D1836, 0xFFE9A8, 0xFFB27A, 0xFFD36B,
        ],
        Mood::Night => [
            0x070B22, 0x101C44, 0x22396E, 0x4A6A9C, 0x2F4A7C, 0x060A1C, 0xF4F1DC, 0x9DB8E8, 0xFFD98A,
        ],
        Mood::Fire => [
            0x1C0712, 0x5E1220, 0xC23A1B, 0xFFAA3C, 0x9A2C1E, 0x14060C, 0xFFE28A, 0xFF9A3C, 0xFFD23C,
        ],
        Mood::Frost => [
            0x6E9BC6, 0xA5C6E0, 0xD5E6F0, 0xF6F5F0, 0xC3D6E6, 0x3E5F86, 0xFFFDF2, 0xFFFFFF, 0xD9534A,
        ],
        Mood::Spring => [
            0x77B7E0, 0xB5DCE8, 0xF4E4E8, 0xFCEFD9, 0xB9D8BE, 0x2F6B4A, 0xFFF8E0, 0xFFF1E6, 0xEE6F9A,
        ],
        Mood::Autumn => [
            0x6E8FA6, 0xC0BFA8, 0xF0CE94, 0xF9E3B4, 0xD8A66C, 0x5A2418, 0xFFF0C4, 0xFFC870, 0xE2571E,
        ],
        Mood::Sand => [
            0x3E7F9E, 0x93B9B4, 0xF0D6A6, 0xFBE7C4, 0xE6B583, 0x8A3F24, 0xFFF6DA, 0xFFDFA0, 0x2E6E76,
        ],
        Mood::Lagoon => [
            0x1468A8, 0x3FA3CF, 0x9ADBDD, 0xFDF0D2, 0x6FB8C2, 0x0B3D5C, 0xFFF7DC, 0xFFF4DE, 0xFF7A59,
        ],
        Mood::Moss => [
            0x5C8C86, 0x9DBFA6, 0xD9E2BC, 0xF5F0D0, 0xA3BFA0, 0x12302A, 0xFFF9DC, 0xFFF3C4, 0xE9A23B,
        ],
        Mood::Neon => [
            0x0D0628, 0x2A0F5A, 0x7A1F8C, 0xFF4F9A, 0x5A2A8C, 0x0A0820, 0xFFD45E, 0xFF7AC8, 0x35E8F0,
        ],
        Mood::Fog => [
            0x7F8E98, 0xA4B0B5, 0xC9CFCE, 0xE4E3DC, 0xB4BEC0, 0x2E3B42, 0xF7F4E8, 0xF0F0EA, 0xC9745A,
        ],
        Mood::Pastel => [
            0x8FA8E0, 0xC4B5EA, 0xF5C6DC, 0xFFE9D2, 0xD3BEE4, 0x6A5A9A, 0xFFFAE8, 0xFFFFFF, 0xFF9AA8,
        ],
        Mood::Cosmos => [
            0x05040F, 0x0E0B26, 0x1E1442, 0x38205E, 0x4A2F7A, 0x0A0818, 0xFFE6C0, 0xE8C8FF, 0x4FC8E8,
        ],
    }
}

//! The caption: the first words of the prompt, and who drew this.
//!
//! Letters are capitals on a grid of five by seven. What is not in the table, such as other scripts, shows as a block.

use std::ops::Range;

use super::frame::{Frame, Rgb};

/// Columns of a letter, and of a letter with the gap after it.
const GLYPH_WIDTH: usize = 5;
const ADVANCE: usize = GLYPH_WIDTH + 1;
/// Rows of a letter, and of a line.
const GLYPH_HEIGHT: usize = 7;
const LINE: usize = GLYPH_HEIGHT + 4;
/// Longest caption on any canvas.
const MAX_CHARS: usize = 44;
/// The second line.
const SIGNATURE: &str = "VELRO SANDBOX";
/// A character without a glyph.
const BLOCK: [u8; GLYPH_HEIGHT] = [0o00, 0o37, 0o37, 0o37, 0o37, 0o37, 0o00];

/// Lightness of the ground from which the caption is dark instead of light.
const PALE: f32 = 0.66;

/// Writes the caption into the lower left corner, as large as suits the canvas, in whichever colour can be read there.
pub(super) fn write(frame: &mut Frame, prompt: &str, light: Rgb, dark: Rgb) {
    let dot = ((frame.unit() / 350.0).round() as usize).max(1);
    let margin = ((frame.unit() * 0.03) as usize).max(3);
    let room = frame.width.saturating_sub(2 * margin) / (ADVANCE * dot);
    let words = first_words(prompt, room.min(MAX_CHARS));
    let signature: String = SIGNATURE.chars().take(room).collect();
    let low = frame.height.saturating_sub(margin + GLYPH_HEIGHT * dot);
    let high = low.saturating_sub(LINE * dot);
    let longest = words.chars().count().max(signature.len()) * ADVANCE * dot;
    let colours = if lightness(frame, margin..margin + longest, high) > PALE {
        (dark, light)
    } else {
        (light, dark)
    };
    line(frame, &signature, (margin, low), dot, colours, 0.6);
    line(frame, &words, (margin, high), dot, colours, 0.9);
}

/// Mean lightness, `0..=1`, of these columns from row `top` down.
fn lightness(frame: &mut Frame, columns: Range<usize>, top: usize) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0_f32);
    for y in top..frame.height {
        for [r, g, b] in frame.row(y).get(columns.clone()).unwrap_or_default() {
            sum += 0.299 * r + 0.587 * g + 0.114 * b;
            count += 1.0;
        }
    }
    sum / count.max(1.0)
}

/// As many whole words as fit, in capitals; a cut is shown by two dots, and a first word too long is cut itself.
fn first_words(prompt: &str, room: usize) -> String {
    let clean = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    // One capital a letter, however many a script has for it: the count must hold.
    let clean: Vec<char> = clean.chars().take(room + 1).map(|c| c.to_ascii_uppercase()).collect();
    if clean.len() <= room {
        return clean.into_iter().collect();
    }
    let Some(kept) = room.checked_sub(2) else {
        return String::new();
    };
    let cut = clean.iter().take(kept + 1).rposition(|c| *c == ' ').unwrap_or(kept);
    clean.into_iter().take(cut).chain("..".chars()).collect()
}

fn line(frame: &mut Frame, text: &str, at: (usize, usize), dot: usize, (colour, shadow): (Rgb, Rgb), alpha: f32) {
    // All shadows first: a letter's shadow must not darken its neighbour.
    for (offset, colour, alpha) in [(dot.div_ceil(2), shadow, alpha * 0.6), (0, colour, alpha)] {
        for (number, letter) in text.chars().enumerate() {
            let left = at.0 + number * ADVANCE * dot + offset;
            for (row, bits) in glyph(letter).into_iter().enumerate() {
                let columns = (0..GLYPH_WIDTH).filter(|c| bits >> (GLYPH_WIDTH - 1 - c) & 1 == 1);
                for column in columns {
                    let (x, y) = (left + column * dot, at.1 + row * dot + offset);
                    for (dx, dy) in (0..dot).flat_map(|dx| (0..dot).map(move |dy| (dx, dy))) {
                        frame.blend((x + dx) as i32, (y + dy) as i32, colour, alpha);
                    }
                }
            }
        }
    }
}

fn glyph(letter: char) -> [u8; GLYPH_HEIGHT] {
    GLYPHS
        .iter()
        .find(|(known, _)| *known == letter)
        .map_or(BLOCK, |(_, rows)| *rows)
}

/// Rows from the top; the five low bits of a row are its columns from the left.
const GLYPHS: &[(char, [u8; GLYPH_HEIGHT])] = &[
    ('A', [0o16, 0o21, 0o21, 0o37, 0o21, 0o21, 0o21]),
    ('B', [0o36, 0o21, 0o21, 0o36, 0o21, 0o21, 0o36]),
    ('C', [0o17, 0o20, 0o20, 0o20, 0o20, 0o20, 0o17]),
    ('D', [0o36, 0o21, 0o21, 0o21, 0o21, 0o21, 0o36]),
    ('E', [0o37, 0o20, 0o20, 0o36, 0o20, 0o20, 0o37]),
    ('F', [0o37, 0o20, 0o20, 0o36, 0o20, 0o20, 0o20]),
    ('G', [0o17, 0o20, 0o20, 0o23, 0o21, 0o21, 0o17]),
    ('H', [0o21, 0o21, 0o21, 0o37, 0o21, 0o21, 0o21]),
    ('I', [0o16, 0o04, 0o04, 0o04, 0o04, 0o04, 0o16]),
    ('J', [0o07, 0o02, 0o02, 0o02, 0o02, 0o22, 0o14]),
    ('K', [0o21, 0o22, 0o24, 0o30, 0o24, 0o22, 0o21]),
    ('L', [0o20, 0o20, 0o20, 0o20, 0o20, 0o20, 0o37]),
    ('M', [0o21, 0o33, 0o25, 0o25, 0o21, 0o21, 0o21]),
    ('N', [0o21, 0o31, 0o31, 0o25, 0o23, 0o23, 0o21]),
    ('O', [0o16, 0o21, 0o21, 0o21, 0o21, 0o21, 0o16]),
    ('P', [0o36, 0o21, 0o21, 0o36, 0o20, 0o20, 0o20]),
    ('Q', [0o16, 0o21, 0o21, 0o21, 0o25, 0o22, 0o15]),
    ('R', [0o36, 0o21, 0o21, 0o36, 0o24, 0o22, 0o21]),
    ('S', [0o17, 0o20, 0o20, 0o16, 0o01, 0o01, 0o36]),
    ('T', [0o37, 0o04, 0o04, 0o04, 0o04, 0o04, 0o04]),
    ('U', [0o21, 0o21, 0o21, 0o21, 0o21, 0o21, 0o16]),
    ('V', [0o21, 0o21, 0o21, 0o21, 0o12, 0o12, 0o04]),
    ('W', [0o21, 0o21, 0o21, 0o25, 0o25, 0o33, 0o21]),
    ('X', [0o21, 0o21, 0o12, 0o04, 0o12, 0o21, 0o21]),
    ('Y', [0o21, 0o21, 0o12, 0o04, 0o04, 0o04, 0o04]),
    ('Z', [0o37, 0o01, 0o02, 0o04, 0o10, 0o20, 0o37]),
    ('0', [0o16, 0o21, 0o23, 0o25, 0o31, 0o21, 0o16]),
    ('1', [0o04, 0o14, 0o04, 0o04, 0o04, 0o04, 0o16]),
    ('2', [0o16, 0o21, 0o01, 0o06, 0o10, 0o20, 0o37]),
    ('3', [0o36, 0o01, 0o01, 0o16, 0o01, 0o01, 0o36]),
    ('4', [0o02, 0o06, 0o12, 0o22, 0o37, 0o02, 0o02]),
    ('5', [0o37, 0o20, 0o36, 0o01, 0o01, 0o21, 0o16]),
    ('6', [0o06, 0o10, 0o20, 0o36, 0o21, 0o21, 0o16]),
    ('7', [0o37, 0o01, 0o02, 0o04, 0o10, 0o10, 0o10]),
    ('8', [0o16, 0o21, 0o21, 0o16, 0o21, 0o21, 0o16]),
    ('9', [0o16, 0o21, 0o21, 0o17, 0o01, 0o02, 0o14]),
    (' ', [0o00, 0o00, 0o00, 0o00, 0o00, 0o00, 0o00]),
    ('.', [0o00, 0o00, 0o00, 0o00, 0o00, 0o14, 0o14]),
    (',', [0o00, 0o00, 0o00, 0o00, 0o06, 0o04, 0o10]),
    (':', [0o00, 0o14, 0o14, 0o00, 0o14, 0o14, 0o00]),
    (';', [0o00, 0o14, 0o14, 0o00, 0o14, 0o04, 0o10]),
    ('!', [0o04, 0o04, 0o04, 0o04, 0o04, 0o00, 0o04]),
    ('?', [0o16, 0o21, 0o01, 0o06, 0o04, 0o00, 0o04]),
    ('-', [0o00, 0o00, 0o00, 0o16, 0o00, 0o00, 0o00]),
    ('_', [0o00, 0o00, 0o00, 0o00, 0o00, 0o00, 0o37]),
    ('+', [0o00, 0o04, 0o04, 0o37, 0o04, 0o04, 0o00]),
    ('*', [0o00, 0o25, 0o16, 0o37, 0o16, 0o25, 0o00]),
    ('/', [0o01, 0o01, 0o02, 0o04, 0o10, 0o20, 0o20]),
    ('\\', [0o20, 0o20, 0o10, 0o04, 0o02, 0o01, 0o01]),
    ('(', [0o02, 0o04, 0o10, 0o10, 0o10, 0o04, 0o02]),
    (')', [0o10, 0o04, 0o02, 0o02, 0o02, 0o04, 0o10]),
    ('[', [0o16, 0o10, 0o10, 0o10, 0o10, 0o10, 0o16]),
    (']', [0o16, 0o02, 0o02, 0o02, 0o02, 0o02, 0o16]),
    ('{', [0o06, 0o04, 0o04, 0o10, 0o04, 0o04, 0o06]),
    ('}', [0o14, 0o04, 0o04, 0o02, 0o04, 0o04, 0o14]),
    ('<', [0o02, 0o04, 0o10, 0o20, 0o10, 0o04, 0o02]),
    ('>', [0o10, 0o04, 0o02, 0o01, 0o02, 0o04, 0o10]),
    ('=', [0o00, 0o00, 0o37, 0o00, 0o37, 0o00, 0o00]),
    ('\'', [0o04, 0o04, 0o10, 0o00, 0o00, 0o00, 0o00]),
    ('"', [0o12, 0o12, 0o12, 0o00, 0o00, 0o00, 0o00]),
    ('`', [0o10, 0o04, 0o00, 0o00, 0o00, 0o00, 0o00]),
    ('#', [0o12, 0o12, 0o37, 0o12, 0o37, 0o12, 0o12]),
    ('%', [0o31, 0o31, 0o02, 0o04, 0o10, 0o23, 0o23]),
    ('&', [0o14, 0o22, 0o24, 0o10, 0o25, 0o22, 0o15]),
    ('@', [0o16, 0o21, 0o27, 0o25, 0o27, 0o20, 0o16]),
    ('$', [0o04, 0o17, 0o24, 0o16, 0o05, 0o36, 0o04]),
    ('^', [0o04, 0o12, 0o21, 0o00, 0o00, 0o00, 0o00]),
    ('~', [0o00, 0o00, 0o11, 0o26, 0o00, 0o00, 0o00]),
    ('|', [0o04, 0o04, 0o04, 0o04, 0o04, 0o04, 0o04]),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn captions_fit_their_room() {
        assert_eq!(first_words("  a  cat ", 20), "A CAT");
        assert_eq!(first_words("a cat on a roof", 12), "A CAT ON A..");
        assert_eq!(first_words("a cat on a roof", 11), "A CAT ON..");
        assert_eq!(first_words("incomprehensibility", 8), "INCOMP..");
        assert_eq!(first_words("a cat", 1), "");
        assert_eq!(first_words("", 10), "");
        for room in 0..30 {
            let text = first_words("straße über 東京 ﬁne long prompt of words", room);
            assert!(text.chars().count() <= room, "{text:?} in {room}");
        }
    }

    #[test]
    fn every_printable_ascii_character_has_a_glyph() {
        for letter in ' '..='~' {
            let letter = letter.to_ascii_uppercase();
            assert!(GLYPHS.iter().any(|(known, _)| *known == letter), "{letter:?}");
        }
        assert_eq!(glyph('東'), BLOCK);
    }
}

//! Soft things (clouds, veils, curtains of light) computed at few points and stretched over the pixels.

use super::frame::Frame;

/// A smooth function of the plane, sampled on a coarse grid and read between its points.
pub(super) struct Field {
    values: Vec<f32>,
    columns: usize,
    cell: f32,
}

impl Field {
    /// Samples from the top of the canvas down to row `end`; further down reads as the last row.
    pub(super) fn new(frame: &Frame, end: f32, sample: impl Fn(f32, f32) -> f32) -> Self {
        let cell = (frame.unit() / 190.0).max(1.0);
        let columns = (frame.width as f32 / cell) as usize + 3;
        let rows = (end / cell) as usize + 3;
        let values = (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (column, row)))
            .map(|(column, row)| sample(column as f32 * cell, row as f32 * cell))
            .collect();
        Self { values, columns, cell }
    }

    /// The value at a pixel.
    pub(super) fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = ((x / self.cell).max(0.0), (y / self.cell).max(0.0));
        let column = (x as usize).min(self.columns - 2);
        let row = (y as usize).min(self.values.len() / self.columns - 2);
        let (tx, ty) = ((x - column as f32).min(1.0), (y - row as f32).min(1.0));
        let at = row * self.columns + column;
        let value = |offset: usize| self.values.get(at + offset).copied().unwrap_or(0.0);
        let top = value(0) * (1.0 - tx) + value(1) * tx;
        let low = value(self.columns) * (1.0 - tx) + value(self.columns + 1) * tx;
        top + (low - top) * ty
    }
}

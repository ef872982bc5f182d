//! Looks into delivered files.

use anyhow::{Result, ensure};

/// Width and height of a PNG, decoded whole so that a broken one is found.
///
/// # Errors
/// If it is no PNG or does not decode.
pub fn png_size(bytes: &[u8]) -> Result<(u32, u32)> {
    ensure!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG signature");
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Png)?;
    Ok((picture.width(), picture.height()))
}

/// Width, height and number of samples of the first track of an MP4.
///
/// # Errors
/// If it is no MP4 with a track.
pub fn mp4_track(bytes: &[u8]) -> Result<(u16, u16, u32)> {
    ensure!(bytes.get(4..8) == Some(b"ftyp"), "no MP4 signature");
    let size = bytes.len() as u64;
    let reader = mp4::Mp4Reader::read_header(std::io::Cursor::new(bytes), size)?;
    let track = reader.tracks().values().next();
    let track = track.ok_or_else(|| anyhow::anyhow!("an MP4 without a track"))?;
    Ok((track.width(), track.height(), track.sample_count()))
}

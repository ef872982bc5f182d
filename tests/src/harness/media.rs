//! Looks into delivered files.

/// Width and height of a PNG, decoded whole so that a broken one is found.
#[must_use]
pub fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG signature");
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Png).expect("a PNG that decodes");
    (picture.width(), picture.height())
}

/// Width, height and number of samples of the first track of an MP4.
#[must_use]
pub fn mp4_track(bytes: &[u8]) -> (u16, u16, u32) {
    assert_eq!(bytes.get(4..8), Some(b"ftyp".as_slice()), "no MP4 signature");
    let size = bytes.len() as u64;
    let reader = mp4::Mp4Reader::read_header(std::io::Cursor::new(bytes), size).expect("an MP4 that parses");
    let track = reader.tracks().values().next().expect("an MP4 with a track");
    (track.width(), track.height(), track.sample_count())
}

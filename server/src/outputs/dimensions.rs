//! Width and height of an image from its header alone, without decoding anything.

/// Pixels of a PNG, JPEG, GIF or WebP that begins with `head`; `None` when they cannot be told.
pub(super) fn read(head: &[u8]) -> Option<(u32, u32)> {
    let found = if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        (head.get(12..16)? == b"IHDR").then_some((be32(head, 16)?, be32(head, 20)?))
    } else if head.starts_with(b"GIF8") {
        Some((le16(head, 6)?, le16(head, 8)?))
    } else if head.starts_with(b"\xff\xd8") {
        jpeg(head)
    } else if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        webp(head)
    } else {
        None
    };
    found.filter(|&(width, height)| width > 0 && height > 0)
}

/// Walks the segments up to the frame header.
fn jpeg(head: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *head.get(at)? != 0xff {
            return None;
        }
        match *head.get(at + 1)? {
            0xff => at += 1, // fill byte
            0x01 | 0xd0..=0xd7 => at += 2,
            // Start of scan or end of image: no frame header came.
            0xd9 | 0xda => return None,
            // Frame headers; the three left out are tables.
            marker @ 0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((be16(head, at + 7)?, be16(head, at + 5)?));
            }
            _ => at += 2 + be16(head, at + 2)? as usize,
        }
    }
}

fn webp(head: &[u8]) -> Option<(u32, u32)> {
    match head.get(12..16)? {
        b"VP8 " => {
            (head.get(23..26)? == b"\x9d\x01\x2a").then_some((le16(head, 26)? & 0x3fff, le16(head, 28)? & 0x3fff))
        }
        b"VP8L" => {
            let bits = le32(head, 21)?;
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => Some((le24(head, 24)? + 1, le24(head, 27)? + 1)),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    Some(le16(bytes, at)? | u32::from(*bytes.get(at + 2)?) << 16)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x04\0\0\0\x03\0";
        assert_eq!(read(png), Some((1024, 768)));
        assert_eq!(read(b"GIF89a\x40\x01\xf0\0"), Some((320, 240)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc0\0\x11\x08\x01\xe0\x02\x80\x03";
        assert_eq!(read(jpeg), Some((640, 480)));
        let extended = b"RIFF....WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x03\0\xff\x02\0";
        assert_eq!(read(extended), Some((1024, 768)));
        assert_eq!(read(b"RIFF....WEBPVP8L\0\0\0\0\x2f\xff\xc3\x3f\0"), Some((1024, 256)));
        assert_eq!(
            read(b"RIFF....WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01"),
            Some((640, 480))
        );
    }

    #[test]
    fn nonsense_is_no_size() {
        for head in [
            &b""[..],
            b"\xff\xd8",
            b"\xff\xd8\xff\xe0\0\0",
            b"\x89PNG\r\n\x1a\n",
            b"GIF89a\0\0\0\0",
            b"text",
        ] {
            assert_eq!(read(head), None, "{head:?}");
        }
    }
}

//! What libjpeg-turbo warns of in a header, and reads all the same: its warnings are errors here,
//! since most of them mean that pixels are missing. These do not.

/// The stream without stray bytes between its first segments (cameras leave some), and with a
/// transform that Adobe's marker may have: an unknown one is YCbCr's, or YCCK's, to libjpeg. None
/// if nothing of that is there.
pub(super) fn tidied(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut tidied: Option<Vec<u8>> = None;
    let mut transform_at = None;
    let mut components = 0;
    // Where the next segment should begin.
    let mut at = 2;
    loop {
        let rest = bytes.get(at..)?;
        let skip = memchr::memchr(0xFF, rest)?;
        let marker = *rest.get(skip + 1)?;
        if skip > 0 && tidied.is_none() {
            tidied = Some(bytes.get(..at)?.to_vec());
        }
        let start = at + skip;
        // Fill bytes and bare markers.
        if matches!(marker, 0xFF | 0x00 | 0x01 | 0xD0..=0xD8) {
            let length = if marker == 0xFF { 1 } else { 2 };
            if marker == 0x00 {
                // No marker: two more stray bytes.
                tidied.get_or_insert_with(|| bytes.get(..start).unwrap_or_default().to_vec());
            } else if let Some(tidied) = &mut tidied {
                tidied.extend(bytes.get(start..start + length)?);
            }
            at = start + length;
            continue;
        }
        let length = usize::from(u16::from_be_bytes(
            *rest.get(skip + 2..)?.first_chunk::<2>()?,
        ));
        let end = start + 2 + length.max(2);
        let segment = bytes.get(start..end)?;
        if matches!(marker, 0xC0..=0xC2) {
            components = *segment.get(9)?;
        }
        if marker == 0xEE && segment.get(4..9) == Some(b"Adobe") && segment.len() >= 16 {
            transform_at = Some(tidied.as_ref().map_or(start, Vec::len) + 15);
        }
        let is_scan = marker == 0xDA;
        let kept = if is_scan {
            bytes.get(start..)?
        } else {
            segment
        };
        if let Some(tidied) = &mut tidied {
            tidied.extend(kept);
        }
        if is_scan {
            break;
        }
        at = end;
    }
    let known = |transform: u8| match components {
        3 => (transform <= 1).then_some(transform).ok_or(1),
        4 => matches!(transform, 0 | 2).then_some(transform).ok_or(2),
        _ => Ok(transform),
    };
    if let Some(place) = transform_at {
        let current = tidied.as_deref().unwrap_or(bytes);
        if let Err(instead) = known(*current.get(place)?) {
            let tidied = tidied.get_or_insert_with(|| bytes.to_vec());
            *tidied.get_mut(place)? = instead;
        }
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u16 + 2).to_be_bytes();
        [&[0xFF, marker][..], &length, data].concat()
    }

    fn frame(components: u8) -> Vec<u8> {
        segment(
            0xC0,
            &[&[8, 0, 8, 0, 8, components][..], &[1, 17, 0].repeat(3)].concat(),
        )
    }

    fn adobe(transform: u8) -> Vec<u8> {
        segment(0xEE, &[&b"Adobe\0\x64\0\0\0\0"[..], &[transform]].concat())
    }

    #[test]
    fn only_what_is_untidy_is_changed() {
        let start = vec![0xFF, 0xD8];
        let scan = [
            segment(0xDA, &[1, 1, 0, 0, 63, 0]),
            b"data\xFF\0\xFF\xD9".to_vec(),
        ]
        .concat();
        let tidy = [start.clone(), adobe(1), frame(3), scan.clone()].concat();
        assert_eq!(tidied(&tidy), None);
        let filled = [
            start.clone(),
            vec![0xFF; 3],
            adobe(1),
            frame(3),
            scan.clone(),
        ]
        .concat();
        assert_eq!(tidied(&filled), None);
        for stray in [&b"stray"[..], b"\xFF\0", b"a\xFF\0b"] {
            let parts = [
                start.clone(),
                stray.to_vec(),
                adobe(2),
                stray.to_vec(),
                frame(3),
            ];
            let untidy = [parts.concat(), scan.clone()].concat();
            assert_eq!(tidied(&untidy).as_deref(), Some(&*tidy), "{stray:?}");
        }
        for (components, transform, instead) in [(3, 2, 1), (4, 1, 2), (3, 9, 1)] {
            let of = |transform| {
                [
                    start.clone(),
                    adobe(transform),
                    frame(components),
                    scan.clone(),
                ]
                .concat()
            };
            assert_eq!(tidied(&of(transform)), Some(of(instead)));
            assert_eq!(tidied(&of(instead)), None);
        }
        for end in 0..tidy.len() {
            assert_eq!(tidied(&tidy[..end]), None, "{end}");
        }
    }
}

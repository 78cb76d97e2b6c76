//! gRPC's framing of messages, followed as the bytes pass by.

/// gRPC's frames ("Length-Prefixed-Message"), as they pass by.
#[derive(Debug, Default)]
pub(super) struct Framing {
    header: [u8; HEADER],
    have: usize,
    /// Bytes that the message under way still lacks.
    pub left: usize,
    /// Bytes of the message under way, its header not counted.
    pub length: usize,
    /// Messages that have passed by whole.
    pub messages: u64,
}

/// A flag and a length of four bytes.
pub(super) const HEADER: usize = 5;

impl Framing {
    /// Looks at bytes that arrived.
    ///
    /// # Errors
    /// The length of a message that is over `largest`.
    pub fn pass(&mut self, mut bytes: &[u8], largest: usize) -> Result<(), usize> {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let Some(place) = self.header.get_mut(self.have..) else {
                    return Ok(());
                };
                let count = place.len().min(bytes.len());
                let (now, rest) = bytes.split_at(count);
                place.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
                self.have += count;
                bytes = rest;
                if self.have < HEADER {
                    return Ok(());
                }
                let [_, length @ ..] = self.header;
                self.length = u32::from_be_bytes(length) as usize;
                self.left = self.length;
                if self.length > largest {
                    return Err(self.length);
                }
            }
            let count = self.left.min(bytes.len());
            self.left -= count;
            bytes = bytes.get(count..).unwrap_or_default();
            if self.left == 0 {
                self.have = 0;
                self.messages += 1;
            }
        }
        Ok(())
    }

    /// Whether the message under way is compressed.
    pub fn is_compressed(&self) -> bool {
        self.header.first() == Some(&1)
    }

    /// Whether a message has begun and is not there yet.
    pub fn is_within(&self) -> bool {
        self.have > 0
    }

    /// Bytes of it that are there.
    pub fn received(&self) -> usize {
        self.length - self.left
    }
}

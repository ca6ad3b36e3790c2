//! Where the frames of a WebSocket end (RFC 6455 section 5.2), and the one frame that we send ourselves.

/// The process stops, or nothing was heard for too long (RFC 6455 section 7.4.1).
pub(super) const GOING_AWAY: u16 = 1001;
/// The key is no longer good.
pub(super) const POLICY_VIOLATION: u16 = 1008;

const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 8;
const MASKED: u8 = 0x80;

/// A Close frame, as servers send it: unmasked, with no words.
pub(super) fn close(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [0x80 | CLOSE, 2, high, low]
}

/// Follows the frames of one direction.
#[derive(Default)]
pub(super) struct Frames {
    /// The head of a frame, as far as it has come.
    head: [u8; 14],
    length: usize,
    /// What is still to come of its payload.
    payload: u64,
    /// Whether the last one was a Close: nothing may follow it.
    closed: bool,
}

impl Frames {
    /// Some more bytes have passed.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.length] = *first;
            self.length += 1;
            bytes = rest;
            if let Some(payload) = self.whole_head() {
                self.closed |= self.head[0] & OPCODE == CLOSE;
                (self.length, self.payload) = (0, payload);
            }
        }
    }

    /// Whether a frame of ours may come next.
    pub(super) fn end_here(&self) -> bool {
        self.length == 0 && self.payload == 0 && !self.closed
    }

    /// The length of the payload, once the head is whole.
    fn whole_head(&self) -> Option<u64> {
        let second = self.head[1];
        let wide = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & MASKED == 0 { 0 } else { 4 };
        if self.length < 2 || self.length < 2 + wide + mask {
            return None;
        }
        if wide == 0 {
            return Some(u64::from(second & !MASKED));
        }
        Some(self.head[2..2 + wide].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { MASKED } else { 0 };
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0xff; length + if masked { 4 } else { 0 }]);
        frame
    }

    #[test]
    fn frames_end_where_they_do_however_the_bytes_come() {
        let lengths = [0, 1, 125, 126, 127, 65535, 65536, 70_000];
        for (length, masked) in lengths.into_iter().flat_map(|length| [(length, false), (length, true)]) {
            let frame = frame(0x81, length, masked);
            for step in [1, 2, 3, 7, 1000, frame.len()] {
                let mut frames = Frames::default();
                assert!(frames.end_here());
                let mut passed = 0;
                for piece in frame.chunks(step) {
                    frames.follow(piece);
                    passed += piece.len();
                    assert_eq!(frames.end_here(), passed == frame.len(), "{length} {masked} {step} {passed}");
                }
            }
            let mut frames = Frames::default();
            frames.follow(&[&frame[..], &frame, &frame[..1]].concat());
            assert!(!frames.end_here());
            frames.follow(&frame[1..]);
            assert!(frames.end_here());
        }
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut frames = Frames::default();
        frames.follow(&frame(0x82, 5, false));
        frames.follow(&close(GOING_AWAY));
        assert!(!frames.end_here());
    }
}

//! A short byte string that lives on the stack or in a static: `rebind.so` must
//! not allocate. Knows nothing of what is written in it.

/// Up to `N` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub(crate) const EMPTY: Text<N> = Text { bytes: [0; N], length: 0 };

    /// A copy of `bytes`, or `None` if they are too many.
    pub(crate) fn copy(bytes: &[u8]) -> Option<Text<N>> {
        (bytes.len() <= N).then(|| Text::EMPTY.with(bytes))
    }

    /// This text with `bytes` behind it; what does not fit is left out.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Text<N> {
        for (to, from) in self.bytes.iter_mut().skip(self.length).zip(bytes) {
            *to = *from;
            self.length += 1;
        }
        self
    }

    /// This text with `number` behind it, in decimal.
    pub(crate) fn with_decimal(self, number: u32) -> Text<N> {
        let more = if number >= 10 { self.with_decimal(number / 10) } else { self };
        let digits = b"0123456789";
        more.with(digits.get((number % 10) as usize).map_or(&[], core::slice::from_ref))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }
}

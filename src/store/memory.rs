//! Memory of a size that a file decides: where it cannot be had, that is an error like any other, not the end of the program.

use crate::error::{Error, ErrorKind, Result};

/// Makes room for `more` elements.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, more: usize) -> Result<()> {
    match vec.try_reserve(more) {
        Ok(()) => Ok(()),
        Err(_) => Err(none_for(more.saturating_mul(size_of::<T>()))),
    }
}

/// Appends one element.
pub(crate) fn push<T>(vec: &mut Vec<T>, element: T) -> Result<()> {
    reserve(vec, 1)?;
    vec.push(element);
    Ok(())
}

/// Collects as many elements as there are.
pub(crate) fn collect<T>(elements: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    for element in elements {
        push(&mut vec, element)?;
    }
    Ok(vec)
}

/// Whether so many bytes could be had, for what then takes them in small parts or in a way that cannot fail.
pub(crate) fn look_for(bytes: usize) -> Result<()> {
    reserve(&mut Vec::<u8>::new(), bytes)
}

#[cold]
fn none_for(bytes: usize) -> Error {
    let message = format!("no memory for {bytes} bytes");
    Error::new(ErrorKind::NoMemory, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_memory_that_nobody_has_is_an_error() {
        for bytes in [usize::MAX, usize::MAX / 2, 1 << 60] {
            assert_eq!(look_for(bytes).unwrap_err().kind(), ErrorKind::NoMemory);
        }
        look_for(0).unwrap();
        let mut vec = vec![1u64];
        let error = reserve(&mut vec, usize::MAX / 8).unwrap_err();
        assert_eq!((error.kind(), vec), (ErrorKind::NoMemory, vec![1]));
        assert_eq!(collect(0..1000).unwrap(), (0..1000).collect::<Vec<_>>());
    }
}

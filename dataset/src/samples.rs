//! Names what a training reads: samples of equal length, and the batches that it takes of them.

use crate::error::DataError;
use crate::tokens::Tokens;

/// Samples of equal length.
pub trait SampleSource: Sync {
    /// Tokens of a sample.
    fn sample_len(&self) -> usize;

    /// Samples there are.
    fn sample_count(&self) -> u64;

    /// The tokens of sample `id`, one more than [`SampleSource::sample_len`]: the inputs, and the
    /// targets one further. `None` past the last sample.
    fn sample(&self, id: u64) -> Option<Tokens<'_>>;

    /// The token that ends a document. Where there is one, no token attends to a token of an earlier
    /// document of its sample.
    fn end_of_document(&self) -> Option<u32> {
        None
    }
}

/// Where the batches of a training come from.
pub trait BatchSource {
    /// The samples `ids`; others may be absent from what comes back. `upcoming(n)` is the n-th sample
    /// that will be wanted, counted from the first of `ids`, and `None` after the last of the training.
    ///
    /// # Errors
    /// They cannot be fetched. To ask again is to try again.
    fn batch(
        &mut self,
        ids: &[u64],
        upcoming: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError>;
}

/// Samples that are all here.
impl<S: SampleSource> BatchSource for &S {
    fn batch(
        &mut self,
        _: &[u64],
        _: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError> {
        Ok(*self)
    }
}

/// The same where it is not known what they are.
impl BatchSource for &dyn SampleSource {
    fn batch(
        &mut self,
        _: &[u64],
        _: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError> {
        Ok(*self)
    }
}

/// Whichever kind it is.
impl<B: BatchSource + ?Sized> BatchSource for &mut B {
    fn batch(
        &mut self,
        ids: &[u64],
        upcoming: &mut dyn FnMut(u64) -> Option<u64>,
    ) -> Result<&dyn SampleSource, DataError> {
        (**self).batch(ids, upcoming)
    }
}

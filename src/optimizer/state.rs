//! A tensor's state by its names: what it is, what it holds, and the arrays themselves.

use super::Optimizer;
use super::tensor::{StateOwner, Tensor, TensorId};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};

impl Optimizer {
    /// A tensor's state of that name, where the library owns it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`], [`Error::StateKeptIn`],
    /// [`Error::StateOfCaller`].
    pub fn state<E: Element>(&self, tensor: TensorId, slot: &str) -> Result<&[E]> {
        let tensor = self.registered(tensor)?;
        tensor.state(self.slot(tensor, slot)?)
    }

    /// A tensor's state of that name, to be changed.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub fn state_mut<E: Element>(&mut self, tensor: TensorId, slot: &str) -> Result<&mut [E]> {
        let id = tensor;
        let index = self.slot(self.registered(id)?, slot)?;
        self.tensors[id.index()].state_mut(index)
    }

    /// A tensor's state of that name as the bytes that it is kept in, to be saved, restored or handed
    /// on: of [`DType::Q8`], one an element, followed by the exponents.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`], [`Error::StateOfCaller`].
    pub fn raw_state_mut(&mut self, tensor: TensorId, slot: &str) -> Result<&mut [u8]> {
        let index = self.slot(self.registered(tensor)?, slot)?;
        self.tensors[tensor.index()].raw_state_mut(index)
    }

    /// The values of a tensor's state of that name, whatever they are kept in: exact.
    ///
    /// # Errors
    /// As [`raw_state_mut`](Self::raw_state_mut).
    pub fn state_values(&self, tensor: TensorId, slot: &str) -> Result<Vec<f64>> {
        let mut values = vec![0.0; self.state_len(tensor, slot)?];
        self.read_state(tensor, slot, None, 0, &mut values)?;
        Ok(values)
    }

    /// The values of a tensor's state of that name from element `first` on, as many as `to` has room
    /// for: exact, whatever they are kept in.
    ///
    /// State of the caller's is `state`, the bytes that it is kept in; of the library's own that is
    /// `None`. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`]; [`Error::StateOfCaller`] where `state` is
    /// wanted, [`Error::StateCount`] where it is not; [`Error::Misaligned`]; [`Error::Length`] of
    /// `state`, or where there are not so many elements.
    pub fn read_state(
        &self,
        tensor: TensorId,
        slot: &str,
        state: Option<&[u8]>,
        first: usize,
        to: &mut [f64],
    ) -> Result<()> {
        let tensor = self.registered(tensor)?;
        tensor.read_state(self.slot(tensor, slot)?, state, first, to)
    }

    /// A tensor's element type, length and who owns its state.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    #[inline]
    pub fn tensor_info(&self, tensor: TensorId) -> Result<(DType, usize, StateOwner)> {
        let tensor = self.registered(tensor)?;
        Ok((tensor.dtype, tensor.len, tensor.owner))
    }

    /// Elements of a tensor's state of that name, whoever keeps it: those of the tensor, or of its slice,
    /// or 0 where the options leave it out.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`].
    pub fn state_len(&self, tensor: TensorId, slot: &str) -> Result<usize> {
        let tensor = self.registered(tensor)?;
        Ok(tensor.slot_len(self.slot(tensor, slot)?))
    }

    /// The type that a tensor's state of that name is kept in, and its bytes: those of
    /// [`state_len`](Self::state_len) elements and, of [`DType::Q8`], of the exponents
    /// that they share, one for each 256.
    ///
    /// # Errors
    /// As [`state_len`](Self::state_len).
    pub fn state_bytes(&self, tensor: TensorId, slot: &str) -> Result<(DType, usize)> {
        let tensor = self.registered(tensor)?;
        let slot = self.slot(tensor, slot)?;
        Ok((tensor.slot_dtype(slot), tensor.slot_bytes(slot)))
    }

    /// The names of a tensor's state, in order: those of
    /// [`Algorithm::state_names`](crate::Algorithm::state_names), or of a table's, and `master` of a
    /// parameter that has a master copy.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn state_names(&self, tensor: TensorId) -> Result<impl Iterator<Item = &'static str> + '_> {
        let tensor = self.registered(tensor)?;
        Ok((0..tensor.arrays()).map(|slot| tensor.array_name(slot)))
    }

    fn slot(&self, tensor: &Tensor, name: &str) -> Result<usize> {
        let found = (0..tensor.arrays()).find(|slot| tensor.array_name(*slot) == name);
        found.ok_or_else(|| Error::UnknownState {
            slot: name.into(),
            algorithm: self.descriptor.name,
        })
    }
}

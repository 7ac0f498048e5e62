//! The output matrix and cross entropy, with their backward pass.

use super::batch::MicroBatch;
use super::forward::Sizes;
use super::gpu::{Address, GpuError, ProductForm, ProductResult, Stream};
use super::kernels::loss::{cross_entropy, CrossEntropy};
use super::kernels::norm::{norm_backward, norm_weight_gradient, NormBackward, NormWeightGradient};
use super::kernels::values::add_f32;
use super::layout::UnitKind;
use super::plan::{Region, Working, NORM_ROWS, TURNS};
use super::rank::Rank;

impl Rank {
    /// The losses of all tokens; with a scale, also the gradient of the output matrix, of the last norm and of what
    /// it was given.
    pub(super) fn output(
        &mut self,
        sizes: Sizes,
        scale: Option<f32>,
        active: usize,
    ) -> Result<(), GpuError> {
        let head = self.parameters(self.head_unit())?;
        let rows = self.shape.plan.logit_rows;
        let mut from = 0;
        while from < sizes.tokens {
            let count = rows.min(sizes.tokens - from);
            self.logits(head, from, count, sizes)?;
            let arguments = CrossEntropy {
                logits: self.region(Region::Logits),
                targets: self.tokens(1).plus(from * 4),
                losses: self.region(Region::Losses).plus(from * 4),
                rows: count as u32,
                vocab: sizes.vocab as u32,
                scale,
            };
            cross_entropy(&*self.gpu, Stream::Compute, &arguments)?;
            if scale.is_some() {
                self.output_backward(head, from, count, sizes)?;
            }
            from += count;
        }
        self.used(self.head_unit())?;
        if scale.is_some() {
            self.send_head_gradient(sizes, active)?;
            self.final_norm_backward(sizes, active)?;
        }
        Ok(())
    }

    /// Logits of some rows, in bf16.
    pub(super) fn logits(
        &self,
        head: Address,
        from: u64,
        count: u64,
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let normed = self.region(Region::FinalNormed).plus(from * sizes.hidden * 2);
        self.multiply(
            ProductForm::Nt,
            (count, sizes.vocab, sizes.hidden),
            (normed, sizes.hidden),
            (head, sizes.hidden),
            (self.region(Region::Logits), sizes.vocab),
            ProductResult::Bf16,
            0.0,
        )
    }

    /// From the gradient of some rows of logits to those of the last norm's output and of the output matrix.
    fn output_backward(
        &self,
        head: Address,
        from: u64,
        count: u64,
        sizes: Sizes,
    ) -> Result<(), GpuError> {
        let d_logits = (self.region(Region::Logits), sizes.vocab);
        let d_normed = self.at(self.shape.plan.working(Working::Normed));
        self.multiply(
            ProductForm::Nn,
            (count, sizes.hidden, sizes.vocab),
            d_logits,
            (head, sizes.hidden),
            (d_normed.plus(from * sizes.hidden * 2), sizes.hidden),
            ProductResult::Bf16,
            0.0,
        )?;
        if self.shape.plan.end_parts > 0 {
            // Later, in parts.
            return Ok(());
        }
        let normed = self.region(Region::FinalNormed).plus(from * sizes.hidden * 2);
        let (to, add) = self.head_gradient();
        let beta = if add || from > 0 { 1.0 } else { 0.0 };
        self.multiply(
            ProductForm::Tn,
            (sizes.vocab, sizes.hidden, count),
            d_logits,
            (normed, sizes.hidden),
            (to, sizes.hidden),
            ProductResult::F32,
            beta,
        )
    }

    /// Where the output matrix's gradient is written, and whether it is added to what is there.
    fn head_gradient(&self) -> (Address, bool) {
        if self.shape.plan.region(Region::EndGradient) > 0 {
            return (self.region(Region::EndGradient), false);
        }
        let unit = self.shape.layout.units.get(self.head_unit());
        (unit.map_or(Address::default(), |unit| self.own_gradient(unit)), true)
    }

    /// Sends the gradient of an output matrix of its own; a tied one goes with the embedding's.
    fn send_head_gradient(&mut self, sizes: Sizes, active: usize) -> Result<(), GpuError> {
        if self.shape.config.tied || self.shape.plan.region(Region::EndGradient) == 0 {
            return Ok(());
        }
        match self.shape.plan.end_parts {
            0 => self.send_ends(UnitKind::Head, active),
            _ => self.send_ends_in_parts(UnitKind::Head, sizes, None, active),
        }
    }

    /// Computes the gradient of embedding or output matrix part by part, and sends each on its way: what the logits say of the
    /// output matrix, then what the inputs of `batch` say of the embedding. In a part lie as many rows of each rank's.
    pub(super) fn send_ends_in_parts(
        &mut self,
        kind: UnitKind,
        sizes: Sizes,
        batch: Option<&MicroBatch>,
        active: usize,
    ) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.unit(kind) else { return Ok(()) };
        let (parts, world) = (shape.plan.end_parts, self.world());
        let (own_rows, width) = (sizes.vocab / world, sizes.hidden);
        let rows = own_rows / parts;
        let turn = shape.plan.region(Region::EndGradient) / TURNS as u64;
        let mut sent = [None; TURNS];
        for part in 0..parts {
            let at = (part % TURNS as u64) as usize;
            let buffer = self.region(Region::EndGradient).plus(at as u64 * turn);
            if let Some(sent) = sent[at] {
                self.gpu.wait(Stream::Compute, sent)?;
            }
            for rank in 0..world {
                let first = rank * own_rows + part * rows;
                let to = buffer.plus(rank * rows * width * 4);
                if kind == UnitKind::Head || shape.config.tied {
                    self.head_rows(first, rows, to, sizes)?;
                } else {
                    self.gpu.clear(Stream::Compute, to, rows * width * 4)?;
                }
                if let Some(batch) = batch {
                    self.embedding_rows(batch, first..first + rows, to, sizes)?;
                }
            }
            let computed = self.gpu.record(Stream::Compute)?;
            self.gpu.wait(Stream::Exchange, computed)?;
            let own = self.own_gradient(unit).plus(part * rows * width * 4);
            let received = self.region(Region::Received);
            self.collective.reduce_scatter(
                &*self.gpu,
                Stream::Exchange,
                buffer,
                own,
                received,
                rows * width,
                active,
            )?;
            sent[at] = Some(self.gpu.record(Stream::Exchange)?);
        }
        self.await_exchange()
    }

    /// The gradient of some rows of the output matrix, from the gradient of all logits.
    fn head_rows(&self, first: u64, rows: u64, to: Address, sizes: Sizes) -> Result<(), GpuError> {
        self.multiply(
            ProductForm::Tn,
            (rows, sizes.hidden, sizes.tokens),
            (self.region(Region::Logits).plus(first * 2), sizes.vocab),
            (self.region(Region::FinalNormed), sizes.hidden),
            (to, sizes.hidden),
            ProductResult::F32,
            0.0,
        )
    }

    /// Adds [`Region::EndGradient`] to what the ranks own of the unit.
    pub(super) fn send_ends(&mut self, kind: UnitKind, active: usize) -> Result<(), GpuError> {
        let from = self.region(Region::EndGradient);
        if self.world() > 1 {
            self.send(kind, from, active)?;
            // The buffer is used again on the compute stream.
            return self.await_exchange();
        }
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.unit(kind) else { return Ok(()) };
        add_f32(&*self.gpu, Stream::Compute, self.own_gradient(unit), from, unit.len)
    }

    fn final_norm_backward(&mut self, sizes: Sizes, active: usize) -> Result<(), GpuError> {
        let shape = self.shape.clone();
        let Some(unit) = shape.layout.unit(UnitKind::FinalNorm) else { return Ok(()) };
        let w = self.parameters(self.norm_unit())?;
        let layers = shape.config.layers;
        let parts = self.at(shape.plan.working(Working::NormParts));
        let arguments = NormBackward {
            d_normed: self.at(shape.plan.working(Working::Normed)),
            x: self.state(layers),
            w,
            inverse: self.region(Region::FinalInverse),
            d_x: self.at(shape.plan.working(Working::State)),
            parts,
            tokens: sizes.tokens as u32,
            width: sizes.hidden as u32,
            add: false,
        };
        norm_backward(&*self.gpu, Stream::Compute, &arguments)?;
        self.used(self.norm_unit())?;
        let shared = self.world() > 1;
        let gradient = match shared {
            true => self.region(Region::NormGradient),
            false => self.own_gradient(unit),
        };
        if shared {
            self.await_exchange()?;
            self.gpu.clear(Stream::Compute, gradient, unit.len * 4)?;
        }
        let blocks = sizes.tokens.div_ceil(NORM_ROWS) as u32;
        let width = sizes.hidden as u32;
        let arguments = NormWeightGradient { parts, gradient, blocks, width };
        norm_weight_gradient(&*self.gpu, Stream::Compute, &arguments)?;
        if shared {
            self.send(UnitKind::FinalNorm, gradient, active)?;
        }
        Ok(())
    }
}

//! The answers of a batch's heads in host memory: whole logits, or only the
//! best classes if that is all that is asked for.

use std::{ops::Deref, sync::Arc};

use tch::{Device, Kind, TchError, Tensor};

use super::{
    best::{self, Scored, TopK},
    grouped::{Block, blocks},
    head::{Head, HeadError},
};

/// Logits of a batch below which choosing on the card is not worth its
/// launches, about fifteen. By counting: this many logits cost the host some
/// 0.2 ms to exponentiate and to search, and the launches take less than half
/// of that.
const WORTH: usize = 1 << 15;

/// A row of a matrix that a whole batch shares.
#[derive(Clone, Debug)]
pub struct Row {
    matrix: Arc<[f32]>,
    start: usize,
    width: usize,
}

impl Row {
    /// Row `index` of a matrix with rows of `width`; empty if there is no
    /// such row.
    pub fn new(matrix: Arc<[f32]>, index: usize, width: usize) -> Row {
        Row {
            start: index * width,
            matrix,
            width,
        }
    }

    /// The row cut to its first `width` classes.
    #[must_use]
    fn first(self, width: usize) -> Row {
        Row {
            width: width.min(self.width),
            ..self
        }
    }
}

impl Deref for Row {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.matrix
            .get(self.start..self.start + self.width)
            .unwrap_or(&[])
    }
}

/// What a head is asked for one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScoresRequest {
    /// The logits of all classes.
    Logits,
    /// The best classes and their probabilities.
    Best(TopK),
}

/// A head's scores for one row.
#[derive(Clone, Debug)]
pub enum Scores {
    /// The logits of all classes, [N]: they answer any request.
    Logits(Row),
    /// As many of the best classes as were wanted, best first.
    Best(Vec<Scored>),
}

impl Scores {
    /// The scores of a row that no head has classified.
    pub fn none() -> Scores {
        Scores::Best(Vec::new())
    }

    /// The logits of all classes; empty if they were not wanted.
    pub fn logits(&self) -> &[f32] {
        match self {
            Scores::Logits(logits) => logits,
            Scores::Best(_) => &[],
        }
    }

    /// The best classes, best first; no more of them, and with the same
    /// temperature, as were wanted.
    pub fn best(&self, top_k: TopK) -> Vec<Scored> {
        match self {
            Scores::Logits(logits) => best::best(logits, top_k),
            Scores::Best(best) => best.iter().take(top_k.classes).copied().collect(),
        }
    }
}

/// Where the best classes are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopKBackend {
    /// On a CUDA device, if that is quicker; from whole logits elsewhere.
    #[default]
    Automatic,
    /// In torch's operators wherever nobody wants more: for tests and
    /// measurements.
    Operators,
    /// On the host, from whole logits.
    Host,
}

/// The rows of a batch that one head answers.
#[derive(Clone, Copy)]
pub struct HeadQuery<'a> {
    /// The head that answers these rows.
    pub head: &'a Head,
    /// Which rows of the batch's features it answers.
    pub rows: &'a [i64],
    /// What is wanted, a row each.
    pub wanted: &'a [ScoresRequest],
}

/// Every head's scores for its rows (of `features`, f32 [B, D], unit rows), in
/// their order.
///
/// Where one row of a head, or of small heads that are computed together, wants
/// its logits, all of these rows' logits are copied to the host.
///
/// # Errors
/// As [`grouped_logits`](super::grouped::grouped_logits).
pub fn answers(
    features: &Tensor,
    asked: &[HeadQuery],
    backend: TopKBackend,
) -> Result<Vec<Vec<Scores>>, HeadError> {
    let groups: Vec<(&Head, &[i64])> = asked.iter().map(|it| (it.head, it.rows)).collect();
    let mut answers: Vec<Vec<Scores>> = asked.iter().map(|_| Vec::new()).collect();
    for block in blocks(features, &groups)? {
        let wanted: Vec<ScoresRequest> = (block.parts.iter())
            .filter_map(|part| asked.get(part.group))
            .flat_map(|it| it.wanted)
            .copied()
            .collect();
        let mut scores = of_block(&block, &wanted, backend)?.into_iter();
        for part in &block.parts {
            if let Some(own) = answers.get_mut(part.group) {
                own.extend(scores.by_ref().take(part.rows));
            }
        }
    }
    Ok(answers)
}

fn of_block(
    block: &Block,
    wanted: &[ScoresRequest],
    backend: TopKBackend,
) -> Result<Vec<Scores>, HeadError> {
    let logits = block.aligned()?;
    let widths: Vec<usize> = (block.parts.iter())
        .flat_map(|part| std::iter::repeat_n(part.classes, part.rows))
        .collect();
    let columns = logits.size().get(1).map_or(0, |columns| *columns as usize);
    if let Some(requests) = top_k_requests(wanted)
        && worth_choosing(backend, logits.device(), &requests, columns)
    {
        match best::choose(&logits, &widths, &requests) {
            Ok(best) => return Ok(best.into_iter().map(Scores::Best).collect()),
            // The host takes longer to the same answer.
            Err(error) => tracing::warn!(%error, "the best classes are chosen on the host"),
        }
    }
    let matrix = to_host(&logits)?;
    Ok(widths
        .into_iter()
        .enumerate()
        .map(|(row, width)| Row::new(Arc::clone(&matrix), row, columns).first(width))
        .map(Scores::Logits)
        .collect())
}

/// The top-k requests of the rows; none if any row wants its logits.
fn top_k_requests(wanted: &[ScoresRequest]) -> Option<Vec<TopK>> {
    wanted
        .iter()
        .map(|wanted| match wanted {
            ScoresRequest::Logits => None,
            ScoresRequest::Best(top_k) => Some(*top_k),
        })
        .collect()
}

fn worth_choosing(backend: TopKBackend, device: Device, requests: &[TopK], columns: usize) -> bool {
    let most = requests
        .iter()
        .map(|top_k| top_k.classes)
        .max()
        .unwrap_or(0);
    match backend {
        TopKBackend::Host => false,
        TopKBackend::Operators => true,
        // The host receives 8 bytes for each of the top classes, against 4 for
        // each logit.
        TopKBackend::Automatic => {
            device.is_cuda()
                && requests.len() * columns >= WORTH
                && most.saturating_mul(4) < columns
        }
    }
}

/// The values of a matrix, row by row, in host memory.
///
/// # Errors
/// Torch's own.
pub fn to_host(matrix: &Tensor) -> Result<Arc<[f32]>, TchError> {
    let flat = matrix
        .f_to_kind(Kind::Float)?
        .f_to_device(Device::Cpu)?
        .f_contiguous()?
        .f_flatten(0, -1)?;
    Ok(Vec::<f32>::try_from(flat)?.into())
}

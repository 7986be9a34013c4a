//! A decoder in plain loops of float64, for architectures that our own does not know. Slow and literal.

use candle_core::{DType, Tensor};

pub(crate) type Matrix = Vec<Vec<f64>>;

/// What differs between the architectures.
pub(crate) struct Shape {
    pub heads: usize,
    pub kv_heads: usize,
    pub rope_theta: f64,
    pub norm_eps: f64,
    /// Whether norms stand behind both halves of a layer, and on whole queries and keys (`OLMo` 2), or before them.
    pub norms_behind: bool,
    /// Layers without rotary embeddings.
    pub without_rope: Vec<usize>,
}

/// One layer; the norms are those of the attention and of the feed-forward half.
pub(crate) struct Layer {
    pub norms: [Vec<f64>; 2],
    pub query_key_norms: Option<[Vec<f64>; 2]>,
    pub q: Matrix,
    pub k: Matrix,
    pub v: Matrix,
    pub o: Matrix,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

pub(crate) fn matrix(tensor: &Tensor) -> Matrix {
    tensor.to_dtype(DType::F64).unwrap().to_vec2().unwrap()
}

pub(crate) fn vector(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn times(weight: &Matrix, x: &[f64]) -> Vec<f64> {
    weight.iter().map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn norm(weight: &[f64], x: &[f64], eps: f64) -> Vec<f64> {
    let size = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    weight.iter().zip(x).map(|(w, x)| w * x / size).collect()
}

fn rotate(head: &mut [f64], position: usize, theta: f64) {
    let half = head.len() / 2;
    for i in 0..half {
        let angle = position as f64 * theta.powf(-(i as f64) / half as f64);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * angle.cos() - b * angle.sin();
        head[i + half] = b * angle.cos() + a * angle.sin();
    }
}

fn attention(shape: &Shape, layer: &Layer, xs: &[Vec<f64>], rope: bool) -> Vec<Vec<f64>> {
    let width = layer.q.len() / shape.heads;
    let project = |weight: &Matrix, norms: Option<&Vec<f64>>, position: usize| {
        let mut out = times(weight, &xs[position]);
        if let Some(weight) = norms {
            out = norm(weight, &out, shape.norm_eps);
        }
        out.chunks(width).map(<[f64]>::to_vec).collect::<Vec<_>>()
    };
    let norms = layer.query_key_norms.as_ref();
    let rotated = |weight: &Matrix, norms: Option<&Vec<f64>>, position: usize| {
        let mut heads = project(weight, norms, position);
        if rope {
            for head in &mut heads {
                rotate(head, position, shape.rope_theta);
            }
        }
        heads
    };
    let ks: Vec<_> = (0..xs.len()).map(|t| rotated(&layer.k, norms.map(|norms| &norms[1]), t)).collect();
    let vs: Vec<_> = (0..xs.len()).map(|t| project(&layer.v, None, t)).collect();
    let attend = |t: usize| {
        let queries = rotated(&layer.q, norms.map(|norms| &norms[0]), t);
        let mut joined = Vec::new();
        for (head, query) in queries.iter().enumerate() {
            let group = head * shape.kv_heads / shape.heads;
            let dot = |key: &Vec<f64>| query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
            let weights: Vec<f64> = (0..=t).map(|s| (dot(&ks[s][group]) / (width as f64).sqrt()).exp()).collect();
            let total: f64 = weights.iter().sum();
            joined.extend((0..width).map(|i| (0..=t).map(|s| weights[s] * vs[s][group][i]).sum::<f64>() / total));
        }
        times(&layer.o, &joined)
    };
    (0..xs.len()).map(attend).collect()
}

fn feed_forward(layer: &Layer, x: &[f64]) -> Vec<f64> {
    let gate = times(&layer.gate, x).into_iter().map(|x| x / (1.0 + (-x).exp()));
    let inner: Vec<f64> = gate.zip(times(&layer.up, x)).map(|(gate, up)| gate * up).collect();
    times(&layer.down, &inner)
}

/// Log-probabilities of all tokens after a prompt. `ends` are the embedding and the head, `last` the final norm.
pub(crate) fn logprobs(shape: &Shape, layers: &[Layer], ends: [&Matrix; 2], last: &[f64], prompt: &[u32]) -> Vec<f64> {
    let mut xs: Vec<Vec<f64>> = prompt.iter().map(|token| ends[0][*token as usize].clone()).collect();
    let add = |xs: &mut Vec<Vec<f64>>, more: Vec<Vec<f64>>| {
        xs.iter_mut().zip(more).for_each(|(x, more)| x.iter_mut().zip(more).for_each(|(x, more)| *x += more));
    };
    for (index, layer) in layers.iter().enumerate() {
        let normed = |half: usize, xs: &[Vec<f64>]| -> Vec<Vec<f64>> {
            xs.iter().map(|x| norm(&layer.norms[half], x, shape.norm_eps)).collect()
        };
        let rope = !shape.without_rope.contains(&index);
        let attended = if shape.norms_behind {
            normed(0, &attention(shape, layer, &xs, rope))
        } else {
            attention(shape, layer, &normed(0, &xs), rope)
        };
        add(&mut xs, attended);
        let each = |xs: &[Vec<f64>]| -> Vec<Vec<f64>> { xs.iter().map(|x| feed_forward(layer, x)).collect() };
        let fed = if shape.norms_behind { normed(1, &each(&xs)) } else { each(&normed(1, &xs)) };
        add(&mut xs, fed);
    }
    let logits = times(ends[1], &norm(last, xs.last().unwrap(), shape.norm_eps));
    let total = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    logits.into_iter().map(|logit| logit - total).collect()
}

//! The kernels as Rust calls them, against candle's gradients of plain operations in float32 on the CPU. Needs a GPU;
//! `benches/training_kernels.py` checks each kernel on many more shapes.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::softmax;

use super::TrainKernels;
use crate::lm::kernels::cuda_device;
use crate::lm::train_ops::{AdamwStep, AdamwTensors, Angles, HeadShape, Heads, NormInput, Rotation};

const EPS: f64 = 1e-6;

fn gpu() -> (Device, TrainKernels) {
    let device = cuda_device().unwrap();
    let kernels = TrainKernels::for_device(&device).unwrap().unwrap();
    (device, kernels)
}

/// Numbers of deviation 1 that bf16 holds, in float32 on the CPU; the same for the same seed and shape.
fn random(seed: u64, shape: &[usize]) -> Tensor {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count).map(|_| (random.f32() - 0.5) * 12f32.sqrt()).collect();
    let rounded = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap().to_dtype(DType::BF16).unwrap();
    rounded.to_dtype(DType::F32).unwrap()
}

fn on(device: &Device, tensor: &Tensor, dtype: DType) -> Tensor {
    tensor.to_dtype(dtype).unwrap().to_device(device).unwrap()
}

fn half(device: &Device, tensor: &Tensor) -> Tensor {
    on(device, tensor, DType::BF16)
}

fn zeros(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, device).unwrap()
}

/// The error's norm is within `limit` of the reference's.
#[track_caller]
fn close(got: &Tensor, want: &Tensor, limit: f32) {
    let got = got.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().reshape(want.shape()).unwrap();
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
    let error = norm(&(got - want).unwrap()) / norm(want);
    assert!(error <= limit, "off by {error} of the reference; the limit is {limit}");
}

/// The gradients of `sum(y * d_y)` by some variables.
fn gradients<const N: usize>(y: &Tensor, d_y: &Tensor, by: [&Var; N]) -> [Tensor; N] {
    let store = (y * d_y).unwrap().sum_all().unwrap().backward().unwrap();
    by.map(|var| store.get(var).unwrap().clone())
}

fn plain_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let mean = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    x.broadcast_div(&(mean + EPS).unwrap().sqrt().unwrap()).unwrap().broadcast_mul(weight).unwrap()
}

#[test]
fn a_norm_and_its_gradients() {
    let (device, kernels) = gpu();
    for (rows, width) in [(5, 64), (33, 896), (3, 1544)] {
        let (x, weight) = (random(1, &[rows, width]), random(2, &[width]));
        let (d_y, beside) = (random(3, &[rows, width]), random(4, &[rows, width]));
        let (vx, vw) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&weight).unwrap());
        let y = plain_norm(&vx, &vw);
        let [want_x, want_w] = gradients(&y, &d_y, [&vx, &vw]);

        let (x, weight, d_y, beside) =
            (half(&device, &x), half(&device, &weight), half(&device, &d_y), half(&device, &beside));
        let input = NormInput { x: &x, weight: &weight, eps: EPS };
        close(&kernels.rms_norm(&input).unwrap(), &y, 4e-3);
        let total = on(&device, &random(5, &[width]), DType::F32);
        let d_x = kernels.rms_norm_backward(&input, &d_y, None, &total).unwrap();
        close(&d_x, &want_x, 4e-3);
        close(&total, &(random(5, &[width]) + want_w).unwrap(), 1e-4);
        let both = kernels.rms_norm_backward(&input, &d_y, Some(&beside), &total).unwrap();
        close(&both, &(want_x + random(4, &[rows, width])).unwrap(), 4e-3);

        let (sum, normed) = kernels.add_rms_norm(&input, &beside).unwrap();
        let want = (random(1, &[rows, width]) + random(4, &[rows, width])).unwrap();
        close(&sum, &want, 4e-3);
        close(&normed, &plain_norm(&want, &random(2, &[width])), 6e-3);
    }
}

#[test]
fn the_gated_activation_and_its_gradient() {
    let (device, kernels) = gpu();
    let (packed, d_y) = (random(1, &[7, 2 * 1000]), random(2, &[7, 1000]));
    let var = Var::from_tensor(&packed).unwrap();
    let [gate, up] = [0, 1000].map(|start| var.narrow(1, start, 1000).unwrap());
    let y = (gate.silu().unwrap() * up).unwrap();
    let [want] = gradients(&y, &d_y, [&var]);
    let packed = half(&device, &packed);
    close(&kernels.gated(&packed).unwrap(), &y, 4e-3);
    close(&kernels.gated_backward(&packed, &half(&device, &d_y)).unwrap(), &want, 4e-3);
}

#[test]
fn heads_are_rotated_and_turned_back() {
    let (device, kernels) = gpu();
    let shape = HeadShape { heads: 4, kv_heads: 2, head_dim: 64 };
    let (rows, width) = (9, shape.packed_width());
    let angles = random(1, &[rows, 32]);
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let (packed, bias) = (random(2, &[rows, width]), random(3, &[width]));
    let whole = packed.broadcast_add(&bias).unwrap().reshape((rows, 8, 64)).unwrap();
    let rotated = |x: &Tensor| {
        let [low, high] = [0, 32].map(|start| x.narrow(2, start, 32).unwrap());
        let [cos, sin] = [&cos, &sin].map(|table| table.unsqueeze(1).unwrap());
        let low_turned = (low.broadcast_mul(&cos).unwrap() - high.broadcast_mul(&sin).unwrap()).unwrap();
        let high_turned = (high.broadcast_mul(&cos).unwrap() + low.broadcast_mul(&sin).unwrap()).unwrap();
        Tensor::cat(&[low_turned, high_turned], 2).unwrap()
    };
    let (cos_there, sin_there) = (on(&device, &cos, DType::F32), on(&device, &sin, DType::F32));
    let angles = Angles { cos: &cos_there, sin: &sin_there };

    let (packed, bias) = (half(&device, &packed), half(&device, &bias));
    let heads = kernels.split_heads(&packed, Some(&bias), Some(&angles), shape).unwrap();
    close(&heads.q, &rotated(&whole.narrow(1, 0, 4).unwrap()), 4e-3);
    close(&heads.k, &rotated(&whole.narrow(1, 4, 2).unwrap()), 4e-3);
    close(&heads.v, &whole.narrow(1, 6, 2).unwrap(), 4e-3);
    let back = kernels.join_heads(&heads, Some(&angles), shape).unwrap();
    close(&back, &whole, 6e-3);

    let x = random(4, &[rows, 3, 64]);
    let turned = kernels.rotate(&half(&device, &x), &angles, Rotation::Forward).unwrap();
    close(&turned, &rotated(&x), 4e-3);
    close(&kernels.rotate(&turned, &angles, Rotation::Inverse).unwrap(), &x, 6e-3);
}

/// Causal attention of one sequence: q `[rows, heads, dim]`, k and v `[rows, kv_heads, dim]`.
fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let (rows, heads, dim) = q.dims3().unwrap();
    let groups = heads / k.dim(1).unwrap();
    let of_each_query = |x: &Tensor| {
        let index: Vec<u32> = (0..heads).map(|head| (head / groups) as u32).collect();
        let x = x.index_select(&Tensor::new(index, &Device::Cpu).unwrap(), 1).unwrap();
        x.transpose(0, 1).unwrap().contiguous().unwrap()
    };
    let q = q.transpose(0, 1).unwrap().contiguous().unwrap();
    let scores = q.matmul(&of_each_query(k).t().unwrap().contiguous().unwrap()).unwrap();
    let later = |at: usize| if at % rows > at / rows { f32::NEG_INFINITY } else { 0.0 };
    let mask = Tensor::from_vec((0..rows * rows).map(later).collect::<Vec<_>>(), (rows, rows), &Device::Cpu).unwrap();
    let scores = (scores / (dim as f64).sqrt()).unwrap().broadcast_add(&mask).unwrap();
    let out = softmax(&scores, D::Minus1).unwrap().matmul(&of_each_query(v)).unwrap();
    out.transpose(0, 1).unwrap().contiguous().unwrap()
}

#[test]
fn attention_and_its_gradients() {
    let (device, kernels) = gpu();
    for (heads, kv_heads, head_dim) in [(14, 2, 64), (3, 3, 96), (12, 2, 128)] {
        let shape = HeadShape { heads, kv_heads, head_dim };
        let ranges = [0..150, 150..153, 153..420];
        let part = |seed, heads| random(seed, &[420, heads, head_dim]);
        let (q, k, v, d_out) = (part(1, heads), part(2, kv_heads), part(3, kv_heads), part(4, heads));
        let vars = [&q, &k, &v].map(|part| Var::from_tensor(part).unwrap());
        let one = |rows: &std::ops::Range<usize>| {
            let [q, k, v] = [0, 1, 2].map(|i| vars[i].narrow(0, rows.start, rows.len()).unwrap());
            plain_attention(&q, &k, &v)
        };
        let out = Tensor::cat(&ranges.iter().map(one).collect::<Vec<_>>(), 0).unwrap();
        let want = gradients(&out, &d_out, [&vars[0], &vars[1], &vars[2]]);

        let flat = |x: &Tensor| half(&device, &x.flatten_from(1).unwrap());
        let there = Heads { q: flat(&q), k: flat(&k), v: flat(&v) };
        let segments = kernels.segments(&ranges, shape).unwrap();
        let attended = kernels.attention(&there, &segments).unwrap();
        close(&attended.output, &out, 6e-3);
        let found = kernels.attention_backward(&there, &attended, &flat(&d_out), &segments).unwrap();
        for (found, want) in [&found.q, &found.k, &found.v].into_iter().zip(&want) {
            close(found, want, 1e-2);
        }
        let again = kernels.attention_backward(&there, &attended, &flat(&d_out), &segments).unwrap();
        let bits = |x: &Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(&again.k), bits(&found.k));
        assert_eq!(bits(&again.q), bits(&found.q));
    }
}

#[test]
fn log_probabilities_and_the_gradient_of_logits() {
    let (device, kernels) = gpu();
    for (vocab, temperature) in [(64, 1.0), (1003, 0.7)] {
        let logits = (random(1, &[5, vocab]) * 3.0).unwrap().to_dtype(DType::BF16).unwrap();
        let logits = logits.to_dtype(DType::F32).unwrap();
        let targets = Tensor::new(&[0u32, 5, 63, 7, 1], &Device::Cpu).unwrap();
        let var = Var::from_tensor(&logits).unwrap();
        let all = candle_nn::ops::log_softmax(&(var.as_tensor() / temperature).unwrap(), D::Minus1).unwrap();
        let logprob = all.gather(&targets.unsqueeze(1).unwrap(), 1).unwrap().squeeze(1).unwrap();
        let d_logprob = Tensor::new(&[1f32, -0.5, 0.0, 2.0, 0.25], &Device::Cpu).unwrap();
        let [want] = gradients(&logprob, &d_logprob, [&var]);
        let entropy = (all.exp().unwrap() * &all).unwrap().sum(1).unwrap().neg().unwrap();

        let (there, targets) = (half(&device, &logits), targets.to_device(&device).unwrap());
        let scores = kernels.token_logprobs(&there, &targets, temperature).unwrap();
        close(&scores.logprob, &logprob, 1e-5);
        close(&scores.entropy, &entropy, 1e-5);
        let slope = d_logprob.to_device(&device).unwrap();
        kernels.logits_backward(&there, &targets, &scores.lse, &slope, temperature).unwrap();
        close(&there, &want, 4e-3);
    }
}

#[test]
fn gradients_of_weights_biases_and_embeddings_are_added() {
    let (device, kernels) = gpu();
    let (rows, outs, ins) = (37, 96, 64);
    let (d_y, x) = (random(1, &[rows, outs]), random(2, &[rows, ins]));
    let (there_d_y, there_x) = (half(&device, &d_y), half(&device, &x));
    let weight = on(&device, &random(3, &[outs, ins]), DType::F32);
    kernels.weight_gradient(&there_d_y, &there_x, &weight).unwrap();
    close(&weight, &(random(3, &[outs, ins]) + d_y.t().unwrap().matmul(&x).unwrap()).unwrap(), 1e-5);

    let bias = on(&device, &random(4, &[outs]), DType::F32);
    kernels.bias_backward(&there_d_y, &bias).unwrap();
    close(&bias, &(random(4, &[outs]) + d_y.sum(0).unwrap()).unwrap(), 1e-5);

    let tokens: Vec<u32> = (0..rows as u32).map(|row| row * row % 11).collect();
    let table = on(&device, &random(5, &[11, ins]), DType::F32);
    kernels.embedding_backward(&there_x, &tokens, &table).unwrap();
    let want = random(5, &[11, ins]).index_add(&Tensor::new(tokens, &Device::Cpu).unwrap(), &x, 0).unwrap();
    close(&table, &want, 1e-5);
}

/// The float32 of a bfloat16 that was rounded half away from zero, and the bits that were rounded off.
fn whole(weight: &Tensor, low_bits: &Tensor) -> Tensor {
    let weight = weight.to_vec1::<half::bf16>().unwrap();
    let low_bits = low_bits.to_vec1::<i16>().unwrap();
    let join = |(weight, low): (half::bf16, i16)| {
        let (weight, low) = (u32::from(weight.to_bits()), u32::from(low.cast_unsigned()));
        f32::from_bits((weight - (low >> 15)) << 16 | low)
    };
    let joined: Vec<f32> = weight.into_iter().zip(low_bits).map(join).collect();
    Tensor::new(joined, &Device::Cpu).unwrap()
}

#[test]
fn a_step_of_adamw() {
    let (device, kernels) = gpu();
    let count = 5003;
    let float = |seed| on(&device, &random(seed, &[count]), DType::F32);
    let gradient = float(2);
    let (first, second) = (zeros(&device, &[count]), zeros(&device, &[count]));
    // A parameter that bfloat16 holds exactly has no bits below it.
    let start = random(1, &[count]).to_dtype(DType::BF16).unwrap();
    let weight = start.to_device(&device).unwrap();
    let low_bits = Tensor::zeros(count, DType::I16, &device).unwrap();
    let tensors = AdamwTensors {
        low_bits: &low_bits,
        first_moment: &first,
        second_moment: &second,
        gradient: &gradient,
        weight: &weight,
    };
    let step = |step| AdamwStep {
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        step,
        gradient_scale: 0.5,
    };
    for at in 1..=3 {
        kernels.adamw(&tensors, &step(at)).unwrap();
    }
    // With one gradient for all steps the corrected moments are it and its square: each step goes its sign's way.
    let moved = |(value, gradient): (f32, f32)| {
        (0..3).fold(value, |value, _| value - 0.01 * (0.1 * value + 0.5 * gradient / ((0.5 * gradient).abs() + 1e-8)))
    };
    let start = start.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
    let gradients = random(2, &[count]).to_vec1::<f32>().unwrap();
    let want: Vec<f32> = start.into_iter().zip(gradients).map(moved).collect();
    let want = Tensor::new(want, &Device::Cpu).unwrap();
    close(&whole(&weight, &low_bits), &want, 1e-5);
    close(&weight, &want, 4e-3);
    assert!(kernels.adamw(&tensors, &step(0)).unwrap_err().to_string().contains("counted from 1"));

    let squares = kernels.sum_of_squares(&[&gradient, &first]).unwrap();
    let exact = |tensor: &Tensor| -> f64 {
        tensor.to_vec1::<f32>().unwrap().into_iter().map(|x| f64::from(x) * f64::from(x)).sum()
    };
    assert!((squares / (exact(&gradient) + exact(&first)) - 1.0).abs() < 1e-6, "{squares}");
}

#[test]
fn what_does_not_fit_is_named() {
    let (device, kernels) = gpu();
    let shape = HeadShape { heads: 2, kv_heads: 1, head_dim: 64 };
    let error = kernels.segments(&[0..3, 4..5], shape).unwrap_err().to_string();
    assert!(error.contains("4..5") && error.contains("start at 3"), "{error}");
    let error = kernels.segments(&[0..3], HeadShape { head_dim: 80, ..shape }).unwrap_err().to_string();
    assert!(error.contains("width 80"), "{error}");
    let x = half(&device, &random(1, &[3, 16]));
    let error = kernels.bias_backward(&x, &zeros(&device, &[8])).unwrap_err().to_string();
    assert!(error.contains("d_bias is F32 [8]"), "{error}");
    let total = zeros(&device, &[4, 16]);
    let error = kernels.embedding_backward(&x, &[1, 2, 4], &total).unwrap_err().to_string();
    assert!(error.contains("token 4"), "{error}");
    let targets = Tensor::new(&[0u32, 1, 2], &device).unwrap();
    let error = kernels.token_logprobs(&x, &targets, 0.0).unwrap_err().to_string();
    assert!(error.contains("temperature 0"), "{error}");
}

//! The operations against tensor operations, and the laws that a row keeps.

use candle_core::{D, Device, Tensor};

use super::*;
use crate::lm::config::Activation;

fn random(shape: (usize, usize), scale: f64) -> Tensor {
    Tensor::randn(0f32, scale as f32, shape, &Device::Cpu).unwrap()
}

fn farthest(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn exp_is_within_its_bound() {
    for i in 0..=200_000 {
        let x = -87.0 + 87.0 * i as f32 / 200_000.0;
        let wanted = f64::from(x).exp();
        assert!((f64::from(exp(x)) / wanted - 1.0).abs() < 3e-7, "exp({x}) is {} for {wanted}", exp(x));
    }
    assert!(exp(-1e30) < 1e-37 && exp(f32::NEG_INFINITY) < 1e-37);
}

#[test]
fn masked_softmax_is_that_of_tensor_operations() {
    for (rows, keys, window, softcap) in
        [(5, 12, None, None), (1, 40, Some(7), None), (9, 9, Some(3), Some(5.0)), (70, 600, None, Some(30.0))]
    {
        let mask = MaskedSoftmax { rows, first: keys - rows, window, scale: 0.3, softcap };
        let scores = random((2 * rows, keys), 4.0);
        let mut scaled = (&scores * 0.3).unwrap();
        if let Some(cap) = softcap {
            scaled = ((scaled / f64::from(cap)).unwrap().tanh().unwrap() * f64::from(cap)).unwrap();
        }
        let hidden = |row: usize, key: usize| {
            let position = keys - rows + row % rows;
            key > position || window.is_some_and(|window| key + window <= position)
        };
        let bias = (0..2 * rows).flat_map(|row| (0..keys).map(move |key| (row, key)));
        let bias: Vec<f32> = bias.map(|(row, key)| if hidden(row, key) { f32::NEG_INFINITY } else { 0.0 }).collect();
        let bias = Tensor::from_vec(bias, (2 * rows, keys), &Device::Cpu).unwrap();
        let wanted = candle_nn::ops::softmax((scaled + bias).as_ref().unwrap(), D::Minus1).unwrap();
        masked_softmax(&scores, mask).unwrap();
        assert!(farthest(&scores, &wanted) < 1e-6);
    }
}

#[test]
fn gated_is_that_of_tensor_operations() {
    let x = random((130, 2 * 300), 3.0);
    let (gate, up) = (x.narrow(1, 0, 300).unwrap(), x.narrow(1, 300, 300).unwrap());
    let silu = (gate.silu().unwrap() * &up).unwrap();
    assert!(farthest(&gated(&x, Activation::Silu).unwrap(), &silu) < 1e-5);
    let gelu = (gate.gelu().unwrap() * &up).unwrap();
    assert!(farthest(&gated(&x, Activation::GeluTanh).unwrap(), &gelu) < 1e-5);
}

#[test]
fn a_row_is_the_same_whatever_stands_behind_it() {
    let wide = random((4, 50), 3.0);
    let narrow = wide.narrow(1, 0, 24).unwrap().contiguous().unwrap();
    let mask = MaskedSoftmax { rows: 4, first: 20, window: None, scale: 1.0, softcap: None };
    masked_softmax(&wide, mask).unwrap();
    masked_softmax(&narrow, mask).unwrap();
    let wide = wide.narrow(1, 0, 24).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(wide, narrow.to_vec2::<f32>().unwrap());
}

#[test]
fn norm_and_addition_are_those_of_tensor_operations() {
    let (x, y) = (random((130, 300), 3.0), random((130, 300), 1.0));
    let weight = random((1, 300), 1.0).squeeze(0).unwrap();
    let mean_square = x.sqr().unwrap().mean_keepdim(1).unwrap();
    let root = (mean_square + 1e-6).unwrap().sqrt().unwrap();
    let wanted = x.broadcast_div(&root).unwrap().broadcast_mul(&weight).unwrap();
    assert!(farthest(&norm(&x, &weight, 1e-6).unwrap(), &wanted) < 1e-5);
    let wanted = (&x + &y).unwrap();
    add(&x, &y).unwrap();
    assert_eq!(x.to_vec2::<f32>().unwrap(), wanted.to_vec2::<f32>().unwrap());
}

#[test]
fn heads_are_normed_and_rotated_and_values_are_left_alone() {
    let (rows, heads, kv_heads, dim) = (70, 4, 2, 32);
    let width = (heads + 2 * kv_heads) * dim;
    let (x, angles) = (random((rows, width), 2.0), random((rows, dim / 2), 3.0));
    let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
    let row = |width: usize| random((1, width), 1.0).squeeze(0).unwrap();
    let (bias, of_q, of_k) = (row(width), row(dim), row(dim));
    let numbers = |tensor: &Tensor| tensor.to_vec1::<f32>().unwrap();
    let biased = x.broadcast_add(&bias).unwrap();
    let head = |index: usize, weight: &Tensor| {
        let head = biased.narrow(1, index * dim, dim).unwrap().contiguous().unwrap();
        let head = norm(&head, weight, 1e-6).unwrap().reshape((1, rows, 1, dim)).unwrap();
        candle_nn::rotary_emb::rope_thd(&head, &cos, &sin).unwrap().reshape((rows, dim)).unwrap()
    };
    let mut wanted: Vec<Tensor> = (0..heads).map(|index| head(index, &of_q)).collect();
    wanted.extend((heads..heads + kv_heads).map(|index| head(index, &of_k)));
    wanted.push(biased.narrow(1, (heads + kv_heads) * dim, kv_heads * dim).unwrap());
    let wanted = Tensor::cat(&wanted, 1).unwrap();
    let (bias, norms) = (Some(numbers(&bias)), Some((numbers(&of_q), numbers(&of_k))));
    rotate(&x, &cos, &sin, &HeadRotation { heads, kv_heads, head_dim: dim, bias, norms, eps: 1e-6 }).unwrap();
    assert!(farthest(&x, &wanted) < 1e-5);
}

#[test]
fn rows_go_to_their_slots_and_come_back_by_head() {
    let pool = Tensor::zeros((9, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    let rows = Tensor::arange(0f32, 18.0, &Device::Cpu).unwrap().reshape((3, 6)).unwrap();
    put(&pool, &rows, Runs { column: 2, runs: &[(0, 5, 2), (2, 1, 1)] }).unwrap();
    let spans = [crate::lm::kv::Span { start: 1, len: 1 }, crate::lm::kv::Span { start: 5, len: 2 }];
    let values = gathered(&pool, &spans, 2, 4, Gathered::Values).unwrap();
    let wanted =
        [[[14.0, 15.0], [2.0, 3.0], [8.0, 9.0], [0.0, 0.0]], [[16.0, 17.0], [4.0, 5.0], [10.0, 11.0], [0.0, 0.0]]];
    assert_eq!(values.to_vec3::<f32>().unwrap(), wanted);
    let keys = gathered(&pool, &spans, 2, 4, Gathered::Keys).unwrap();
    assert_eq!(keys.to_vec3::<f32>().unwrap(), values.transpose(1, 2).unwrap().to_vec3::<f32>().unwrap());
}

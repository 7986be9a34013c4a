//! The models themselves: our own engine, the architectures that it does not know, the numbers of both against PyTorch's, and
//! how a model is found on the hub.

mod engine;
mod foreign;
mod goldens;
mod goldens_advantages;
mod goldens_losses;
mod goldens_models;
mod hub;

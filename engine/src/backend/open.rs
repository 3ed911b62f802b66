// SPDX-License-Identifier: MPL-2.0
//! Opens a model on the devices that the options name, and tells why others were passed over.

use std::sync::Arc;

use super::{Backend, BackendChoice, Device, EngineOptions, cpu, cuda};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig};

/// A model on its devices.
pub struct Opened {
    /// One for each device, and one at least.
    pub backends: Vec<Box<dyn Backend>>,
    /// Why devices that `auto` would rather have taken don't run the model, one reason each.
    pub passed_over: Vec<Error>,
    /// What streams go to if all of these are lost.
    pub spare: Option<Spare>,
}

/// Opens a device when it is needed.
pub type Spare = Box<dyn FnOnce() -> Result<(Box<dyn Backend>, ModelConfig)> + Send>;

/// The model on every device that `options` name. Fails if there is none, saying what is missing.
///
/// Of all GPUs ([`Device::Auto`]) those are taken that run the model. If none does, [`BackendChoice::Auto`] takes the CPU.
/// A GPU that is named by its number runs the model or is an error, with [`BackendChoice::Auto`] too.
pub fn open(model: &Arc<Model>, options: &EngineOptions) -> Result<Opened> {
    let cpu = || cpu::CpuBackend::new(model.clone(), options.threads).map(boxed);
    let card = |index| cuda::CudaBackend::new(model.clone(), options, index).map(boxed);
    let alone = |backend| Opened { backends: vec![backend], passed_over: Vec::new(), spare: None };
    match (options.backend, options.device) {
        (BackendChoice::Cpu, Device::Index(index @ 1..)) => {
            let reason = format!("the backend cpu has device 0 only, not {index}");
            Err(Error::Option { option: "device", reason })
        }
        (BackendChoice::Cpu, _) => cpu().map(alone),
        (BackendChoice::Cuda | BackendChoice::Auto, Device::Index(index)) => card(index).map(alone),
        (BackendChoice::Cuda, Device::Auto) => {
            let mut opened = every_card(cuda::count(), card);
            if opened.backends.is_empty() {
                return Err(opened.passed_over.swap_remove(0));
            }
            Ok(opened)
        }
        (BackendChoice::Auto, Device::Auto) => {
            let mut opened = every_card(cuda::count(), card);
            if opened.backends.is_empty() {
                opened.backends.push(cpu()?);
            } else {
                let (model, threads) = (model.clone(), options.threads);
                opened.spare = Some(Box::new(move || {
                    let config = model.config.clone();
                    cpu::CpuBackend::new(model, threads).map(|cpu| (boxed(cpu), config))
                }));
            }
            Ok(opened)
        }
    }
}

fn boxed<'a>(backend: impl Backend + 'a) -> Box<dyn Backend + 'a> {
    Box::new(backend)
}

/// The cards that run the model; if there is none, a reason at least.
fn every_card(count: Result<usize>, open: impl Fn(usize) -> Result<Box<dyn Backend>>) -> Opened {
    let mut opened = Opened { backends: Vec::new(), passed_over: Vec::new(), spare: None };
    let count = match count {
        Ok(count) => count,
        Err(e) => {
            opened.passed_over.push(e);
            return opened;
        }
    };
    for index in 0..count {
        match open(index) {
            Ok(backend) => opened.backends.push(backend),
            Err(Error::Backend { backend, device, kind, reason }) => {
                let reason = format!("card {index}: {reason}");
                opened.passed_over.push(Error::Backend { backend, device, kind, reason });
            }
            // It lies with the model or the options, so no other card will do.
            Err(e) => {
                opened.passed_over.push(e);
                break;
            }
        }
    }
    opened
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Fault;

    fn mini() -> Arc<Model> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/parakeet-tdt-mini");
        Arc::new(Model::load(&dir).expect("the model is in the tree"))
    }

    fn names(opened: &Opened) -> Vec<&'static str> {
        opened.backends.iter().map(|backend| backend.name()).collect()
    }

    fn texts(opened: &Opened) -> Vec<String> {
        opened.passed_over.iter().map(Error::to_string).collect()
    }

    fn failed(reason: &str) -> Error {
        Error::Backend { backend: "cuda", device: None, kind: Fault::Refused, reason: reason.into() }
    }

    #[test]
    fn cards_that_do_not_work_are_passed_over() {
        let model = mini();
        let open = |broken: &'static [usize]| {
            let card = |index: usize| match broken.contains(&index) {
                true => Err(failed("it is too old")),
                false => cpu::CpuBackend::new(model.clone(), 1).map(boxed),
            };
            every_card(Ok(3), card)
        };
        let opened = open(&[1]);
        assert_eq!(
            (names(&opened).len(), texts(&opened)),
            (2, vec!["backend cuda: card 1: it is too old".into()])
        );
        let opened = open(&[0, 1, 2]);
        assert_eq!((names(&opened).len(), texts(&opened).len()), (0, 3));
        let opened = every_card(Ok(3), |_| Err(Error::Unsupported("it is too wide".into())));
        assert_eq!(
            (names(&opened).len(), texts(&opened)),
            (0, vec!["unsupported model: it is too wide".into()])
        );
        let opened = every_card(Err(failed("no driver")), |_| Err(failed("nobody asks")));
        assert_eq!((names(&opened).len(), texts(&opened)), (0, vec!["backend cuda: no driver".into()]));
    }

    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let model = mini();
        let open = |backend, index| {
            let device = Device::Index(index);
            open(&model, &EngineOptions { backend, device, threads: 1, ..Default::default() })
        };
        assert_eq!(open(BackendChoice::Cpu, 0).map(|opened| names(&opened)).ok(), Some(vec!["cpu"]));
        let error = open(BackendChoice::Cpu, 1).err().expect("one CPU").to_string();
        assert_eq!(error, "device: the backend cpu has device 0 only, not 1");
        for backend in [BackendChoice::Auto, BackendChoice::Cuda] {
            let error = open(backend, 1_000).err().expect("no machine has so many").to_string();
            match cuda::count() {
                Ok(count) => {
                    let expected = format!("there is no card 1000; the driver shows {count}");
                    assert!(error.contains(&expected), "{error}");
                }
                Err(missing) => assert_eq!(error, missing.to_string()),
            }
        }
    }
}

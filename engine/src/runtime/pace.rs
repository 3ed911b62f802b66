// SPDX-License-Identifier: MPL-2.0
//! How much a step may hold so that it is over in time.

use std::time::Duration;

use crate::backend::Limits;

/// How much of what a frame took before is kept beside what it took in the last step: a step may be held up by others on the
/// machine, or have little to do.
const KEPT: f64 = 0.7;

/// What an encoder frame of a step takes, as far as it was seen.
#[derive(Default)]
pub(crate) struct Pace {
    /// In seconds; 0 before the first step.
    frame: f64,
}

impl Pace {
    /// A step of so many encoder frames took so long.
    pub(crate) fn note(&mut self, frames: usize, took: Duration) {
        if frames == 0 {
            return;
        }
        let frame = took.as_secs_f64() / frames as f64;
        self.frame = if self.frame == 0.0 { frame } else { KEPT * self.frame + (1.0 - KEPT) * frame };
    }

    /// The limits with no more frames than are over in time.
    pub(crate) fn fit(&self, limits: Limits) -> Limits {
        let frames = match limits.time {
            Some(time) if self.frame > 0.0 => (time.as_secs_f64() / self.frame) as usize,
            _ => usize::MAX,
        };
        Limits { frames: limits.frames.min(frames), ..limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_device_takes_less_at_once() {
        let limits = Limits { time: Some(Duration::from_millis(200)), ..Limits::default() };
        let mut pace = Pace::default();
        assert_eq!(pace.fit(limits).frames, usize::MAX, "nothing is known");
        pace.note(100, Duration::from_millis(100));
        assert_eq!(pace.fit(limits).frames, 200);
        pace.note(0, Duration::from_secs(9));
        for _ in 0..20 {
            pace.note(10, Duration::from_millis(100));
        }
        assert_eq!(pace.fit(limits).frames, 20);
        assert_eq!(pace.fit(Limits { frames: 7, ..limits }).frames, 7);
        assert_eq!(pace.fit(Limits { time: None, ..limits }).frames, usize::MAX);
    }
}

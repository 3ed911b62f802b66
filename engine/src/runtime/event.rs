// SPDX-License-Identifier: MPL-2.0
//! What comes out of a stream: words and what else there is to say, on the stream's sample clock.

use std::time::Duration;

use crate::error::Error;
use crate::text::Word;

/// What a stream has to say, in the order of its audio.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A word that won't change any more.
    Word(Word),
    /// A word that is not complete: what it would be if the utterance ended here. With
    /// [`StreamOptions::partials`](crate::StreamOptions::partials), after each chunk that leaves one.
    Partial(Word),
    /// No word that starts before this sample will come any more.
    Progress {
        /// On the stream's sample clock.
        sample: u64,
    },
    /// The model says that the speaker is done, in a word of its own (`<EOU>`). Words before it came before.
    EndOfUtterance {
        /// Where, on the stream's sample clock.
        sample: u64,
        /// Only a short answer is done, the other speaker goes on (`<EOB>`).
        backchannel: bool,
    },
    /// The model says which language it hears from here on.
    Language {
        /// Where, on the stream's sample clock.
        sample: u64,
        /// Such as `en-US` or `en`.
        code: String,
    },
    /// Audio was dropped because the queue was full.
    Lost {
        /// First sample that was dropped.
        start: u64,
        /// How many.
        samples: u64,
    },
    /// A step failed, or the device did, and the stream went on in another place. No audio is lost by that alone. From here on
    /// words are those of a stream that began to listen its left context earlier: a few may be others than undisturbed.
    Recovered {
        /// Where, on the stream's sample clock.
        sample: u64,
        /// From the failure until the stream was where it had been.
        gap: Duration,
        /// What failed.
        error: Error,
    },
    /// An utterance that [`Stream::finish`](crate::Stream::finish) ended is complete; one for each call.
    Finished {
        /// The sample after its last.
        sample: u64,
    },
    /// The stream is dead. What it had decoded came before.
    Failed {
        /// Why.
        error: Error,
        /// How far it came: the sample after the last that was decoded.
        sample: u64,
    },
}

/// Why audio was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// [`Stream::reset`](crate::Stream::reset) came while the call waited; what it had not queued yet is gone too.
    #[error("the stream was reset")]
    Reset,
    /// The stream has failed.
    #[error("the stream has failed")]
    Closed,
    /// 256 events wait, the queue is full until some are taken, and no other thread has ever used the stream: waiting for it
    /// would be for ever. Take events, then push what follows.
    #[error("the queue is full until events are taken ({taken} samples were queued)")]
    Unread {
        /// Samples of the call that were queued.
        taken: usize,
    },
}

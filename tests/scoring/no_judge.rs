//! The judge of a suite without one: it has no verdict on anything.

use gradus::stages::{Judge, JudgeAnswer, Question, Unavailable, UnavailableCode};

pub(crate) struct NoJudge;

impl Judge for NoJudge {
    fn ask(&self, _: &Question<'_>) -> JudgeAnswer {
        JudgeAnswer::Unavailable(Unavailable {
            code: UnavailableCode::NotConfigured,
            message: "the rubric asks a judge, and this suite has none".to_owned(),
        })
    }
}

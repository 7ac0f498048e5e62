//! The rate of every step.

use trainer::schedule::{Decay, RateSchedule, ScheduleError, Shape};

fn schedule(shape: Shape) -> RateSchedule {
    RateSchedule { peak_rate: 1.0, floor: 0.1, warm_up_steps: 10, shape }
}

fn close(found: f32, expected: f32) {
    assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
}

#[test]
fn the_warm_up_is_a_line_to_the_peak() {
    for shape in [Shape::Flat, Shape::Cosine, Shape::Anneal { decay: Decay::Linear }] {
        let schedule = schedule(shape);
        close(schedule.rate(1, 110), 0.1);
        close(schedule.rate(5, 110), 0.5);
        close(schedule.rate(10, 110), 1.0);
    }
}

#[test]
fn each_shape_follows_its_formula() {
    let flat = schedule(Shape::Flat);
    close(flat.rate(110, 110), 1.0);
    let cosine = schedule(Shape::Cosine);
    close(cosine.rate(60, 110), 0.1 + 0.9 * 0.5);
    close(cosine.rate(110, 110), 0.1);
    // x = 1/4: (1 + cos(π/4)) / 2.
    close(cosine.rate(35, 110), 0.1 + 0.9 * 0.853_553_4);
    let wsd = |decay| schedule(Shape::Wsd { decay_steps: 20, decay });
    close(wsd(Decay::Linear).rate(90, 110), 1.0);
    close(wsd(Decay::Linear).rate(100, 110), 0.1 + 0.9 * 0.5);
    close(wsd(Decay::OneMinusSqrt).rate(95, 110), 0.1 + 0.9 * 0.5);
    close(wsd(Decay::OneMinusSqrt).rate(110, 110), 0.1);
    let anneal = schedule(Shape::Anneal { decay: Decay::Linear });
    close(anneal.rate(60, 110), 0.1 + 0.9 * 0.5);
}

#[test]
fn no_rate_before_the_last_step_is_zero_and_none_rises_after_the_warm_up() {
    let decays = [Decay::Linear, Decay::OneMinusSqrt];
    let shapes = decays
        .into_iter()
        .flat_map(|decay| [Shape::Wsd { decay_steps: 30, decay }, Shape::Anneal { decay }]);
    for shape in shapes.chain([Shape::Flat, Shape::Cosine]) {
        let schedule = RateSchedule { floor: 0.0, ..schedule(shape) };
        let rates: Vec<f32> = (1..=110).map(|step| schedule.rate(step, 110)).collect();
        assert!(rates[..109].iter().all(|rate| *rate > 0.0), "{shape:?}");
        assert!(rates[9..].windows(2).all(|pair| pair[1] <= pair[0]));
    }
}

#[test]
fn schedules_that_do_not_fit_are_refused() {
    let wsd = schedule(Shape::Wsd { decay_steps: 20, decay: Decay::Linear });
    assert_eq!(wsd.check(30), Ok(()));
    assert_eq!(wsd.check(29), Err(ScheduleError::TooLong { warm_up: 10, decay: 20, steps: 29 }));
    for peak_rate in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let wrong = RateSchedule { peak_rate, ..wsd };
        assert!(matches!(wrong.check(100), Err(ScheduleError::PeakRate(_))));
    }
    for floor in [-0.1, 1.1, f32::NAN] {
        let wrong = RateSchedule { floor, ..wsd };
        assert!(matches!(wrong.check(100), Err(ScheduleError::Floor(_))));
    }
}

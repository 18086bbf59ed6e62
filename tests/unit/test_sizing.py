from edgekd.core.sizing import Trial, choose, gain_and_noise, most_worthwhile


def trial(name, right, wrong):
    return Trial(name, (True,) * right + (False,) * wrong)


def test_grows_while_the_gain_is_beyond_its_noise():
    trials = [trial("a", 50, 50), trial("b", 70, 30), trial("c", 90, 10)]
    chosen = choose(trials)
    assert (chosen.best, chosen.stop) == (2, False)
    assert chosen.table == {"a": 0.5, "b": 0.7, "c": 0.9}


def test_a_gain_inside_the_noise_keeps_the_smaller_student_and_two_stop():
    trials = [trial("a", 80, 20), Trial("b", (False,) + (True,) * 80 + (False,) * 18 + (True,)), trial("c", 79, 21)]
    assert choose(trials[:2]).best == 0
    assert not choose(trials[:2]).stop
    assert choose(trials).stop
    assert choose(trials).best == 0


def test_the_noise_is_that_of_the_discordant_pairs():
    gain, noise = gain_and_noise(Trial("a", (True, False, False, True)), Trial("b", (True, True, False, True)))
    assert gain == 0.25
    assert abs(noise - (1 - 0.25) ** 0.5 / 4) < 1e-12
    assert gain_and_noise(trial("a", 5, 5), trial("b", 5, 5)) == (0.0, 0.0)


def test_larger_students_are_worth_their_cost_up_to_the_first_size_that_was_no_better_or_was_not_tried():
    sizes = [10, 30, 90, 270]
    rising, flat = [trial("a", 50, 50), trial("b", 70, 30), trial("c", 90, 10)], trial("d", 90, 10)
    assert most_worthwhile(sizes, rising[:2]) == 90
    assert most_worthwhile(sizes, [*rising, flat]) is None
    assert most_worthwhile([*sizes, 810, 2430], [*rising, flat, flat]) == 270
    assert most_worthwhile(sizes[:3], rising) is None

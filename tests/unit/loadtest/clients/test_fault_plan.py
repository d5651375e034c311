from capnp_rig.loadtest.clients.fault_plan import Action, Step, fault_plan


def test_each_server_has_its_fault() -> None:
    steps = [step for step in fault_plan(10, 40, 1) if step.action is not Action.RESET]
    assert steps == [
        Step(10, 0, Action.SLOW_DOWN),
        Step(20, 2, Action.KILL),
        Step(24, 2, Action.START),
        Step(40, 0, Action.SPEED_UP),
    ]


def test_resets_come_at_random_in_all_of_the_time_of_faults() -> None:
    plan = fault_plan(10, 500, 1)
    resets = [step for step in plan if step.action is Action.RESET]
    assert plan == sorted(plan)
    assert {step.server for step in resets} == {1}
    assert 10 < resets[0].at_s < 15
    assert 505 < resets[-1].at_s < 510
    # 1,000 are expected, with a standard deviation of 32.
    assert 850 < len(resets) < 1150
    assert plan == fault_plan(10, 500, 1)
    assert plan != fault_plan(10, 500, 2)

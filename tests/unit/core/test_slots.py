from shared.core.slots import Slot


def test_each_slot_has_another() -> None:
    assert {slot: slot.other for slot in Slot} == {Slot.BLUE: Slot.GREEN, Slot.GREEN: Slot.BLUE}

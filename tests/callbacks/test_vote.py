from callbacks.vote import Vote
from tests.distributed.ranks import on_ranks


def test_the_largest_number_wins_on_every_rank_however_often_it_is_asked():
    def work(rank):
        vote = Vote()
        vote.start(3)
        outcomes = []
        for cast in ([0, 0, 0], [0, 15, 2], [255, 10, 0], [0, 0, 0]):
            vote.cast(cast[rank])
            outcomes.append(vote.outcome(99))
        return outcomes

    assert on_ranks(work, 3) == [[0, 15, 255, 0]] * 3


def test_a_process_alone_has_its_own_way_at_once():
    vote = Vote()
    vote.start(1)
    vote.cast(0)
    assert vote.outcome(15) == 15

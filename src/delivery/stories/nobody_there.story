# Without members messages wait, and never fail for it.
log 3
wait 1h
show
join a credit=2
wait 30s
close a
show
wait 24h
show
join b credit=5
---
{"floor":0}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
log a joined credit=2
→ a #1 attempt=1/4 until=3630s
→ a #2 attempt=1/4 until=3630s
at 3630s:
commit failed #1 attempt 1 of a 3600s-3630s Timeout
log #1 of a: Timeout, retry 1/3 in 1s
commit failed #2 attempt 1 of a 3600s-3630s Timeout
log #2 of a: Timeout, retry 1/3 in 1s
→ a #3 attempt=1/4 until=3660s
log a left with 1
commit failed #3 attempt 1 of a 3630s-3630s Disconnect
{"floor":0,"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":3600.000000,"ended":3630.000000,"outcome":"timeout"}]},{"offset":2,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":3600.000000,"ended":3630.000000,"outcome":"timeout"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":3630.000000,"ended":3630.000000,"outcome":"disconnect"}]}]}
ready=1 in_flight=0 waiting=2 settling=0 dying=0
at 3631s:
{"floor":0,"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":3600.000000,"ended":3630.000000,"outcome":"timeout"}]},{"offset":2,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":3600.000000,"ended":3630.000000,"outcome":"timeout"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":3630.000000,"ended":3630.000000,"outcome":"disconnect"}]}]}
ready=3 in_flight=0 waiting=0 settling=0 dying=0
log b joined credit=5
→ b #1 attempt=2/4 until=90060s
→ b #2 attempt=2/4 until=90060s
log #3 goes from a to b
→ b #3 attempt=2/5 until=90060s

# A closed connection gives its messages back at once, in order, and before new ones.
log 6
join a credit=3
join b credit=1
join c credit=0
---
log a joined credit=3
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s
→ a #3 attempt=1/4 until=30s
log b joined credit=1
→ b #4 attempt=1/4 until=30s
log c joined credit=0

credit c credit=5
close a
---
→ c #5 attempt=1/4 until=30s
→ c #6 attempt=1/4 until=30s
log a left with 3
commit failed #1 attempt 1 of a 0ns-0ns Disconnect
commit failed #2 attempt 1 of a 0ns-0ns Disconnect
commit failed #3 attempt 1 of a 0ns-0ns Disconnect
log #1 goes from a to c
→ c #1 attempt=2/5 until=30s
log #2 goes from a to c
→ c #2 attempt=2/5 until=30s
log #3 goes from a to c
→ c #3 attempt=2/5 until=30s

# What went wrong is in the history, and is not the message's fault: it may happen any number of
# times, and `of` grows with it.
attempts 1
attempts 3
close c
close b
join d credit=1
---
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
log c left with 5
commit failed #1 attempt 2 of c 0ns-0ns Disconnect
commit failed #2 attempt 2 of c 0ns-0ns Disconnect
commit failed #3 attempt 2 of c 0ns-0ns Disconnect
commit failed #5 attempt 1 of c 0ns-0ns Disconnect
commit failed #6 attempt 1 of c 0ns-0ns Disconnect
log b left with 1
commit failed #4 attempt 1 of b 0ns-0ns Disconnect
log d joined credit=1
log #1 goes from c to d
→ d #1 attempt=3/6 until=30s

close d
join e credit=1
close e
join f credit=1
wait 30s
wait 1s
attempts 1
---
log d left with 1
commit failed #1 attempt 3 of d 0ns-0ns Disconnect
log e joined credit=1
log #1 goes from d to e
→ e #1 attempt=4/7 until=30s
log e left with 1
commit failed #1 attempt 4 of e 0ns-0ns Disconnect
log f joined credit=1
log #1 goes from e to f
→ f #1 attempt=5/8 until=30s
at 30s:
commit failed #1 attempt 5 of f 0ns-30s Timeout
log #1 of f: Timeout, retry 1/3 in 1s
log #2 goes from c to f
→ f #2 attempt=3/6 until=60s
at 31s:
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
{"n":2,"consumer":"c","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
{"n":3,"consumer":"d","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
{"n":4,"consumer":"e","sent":0.000000,"ended":0.000000,"outcome":"disconnect"}
{"n":5,"consumer":"f","sent":0.000000,"ended":30.000000,"outcome":"timeout"}

# Whoever is gone may go again.
close a
close nobody
---

"""Trading rules: pure functions from (prediction, market, portfolio, record) to orders.

`decide.decide` is the entry decision, `exits.manage_position` the exits by time and by risk
mode, `risk.check_hard_limits` the last word before an order is sent. No I/O: live and
in a replay the engine runs this same code.
"""

# The examples' numbers against ones computed in Python, and everything that the report refuses.
include(${PROJECT_SOURCE_DIR}/tests/checks/helpers.cmake)
if(TARGET quickstart AND TARGET rollout_report)
  if(GRPO_PYTHON)
    add_test(NAME example.numbers
             COMMAND ${GRPO_PYTHON} ${PROJECT_SOURCE_DIR}/tests/checks/example_report.py $<TARGET_FILE:rollout_report>
                     $<TARGET_FILE:quickstart> ${PROJECT_SOURCE_DIR})
    set_tests_properties(example.numbers PROPERTIES TIMEOUT 300 ENVIRONMENT "LC_ALL=C.UTF-8;PYTHONDONTWRITEBYTECODE=1")
  else()
    grpo_add_skipped_test(example.numbers "needs python3")
  endif()
endif()

# Short runs of the training examples.
if(TARGET cartpole)
  if(GRPO_PYTHON)
    add_test(NAME example.cartpole_runs
             COMMAND ${GRPO_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/tests/cartpole_runs.py $<TARGET_FILE:cartpole>)
    set_tests_properties(example.cartpole_runs PROPERTIES TIMEOUT 300
                         ENVIRONMENT "LC_ALL=C.UTF-8;PYTHONDONTWRITEBYTECODE=1")
  else()
    grpo_add_skipped_test(example.cartpole_runs "needs python3")
  endif()
endif()

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
